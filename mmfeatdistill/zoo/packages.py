"""What is installed: the OpenMMLab packages, in either of their two families.

The same import names come from two families of distributions: the original one (``mmdet``, last
released in 2024) and the maintained one (``onedl-mmdetection``). Both run the same code here, but
must not be mixed, and neither is a hard requirement of this project.
"""
import importlib
import importlib.util
import os.path as osp
import platform
from importlib.metadata import PackageNotFoundError, distribution

from mmfeatdistill import version
from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.version import __version__

MINIMUM = {'torch': '2.1', 'mmengine': '0.10', 'mmcv': '2.0'}
INSTALL_HINT = (
    "install one of the two package families; in a clone of this project: pip install '.[maintained]' "
    "(onedl-* packages, current torch) or pip install '.[original]' (torch 2.1 to 2.5, numpy<2); for the latter, and "
    'for compiled operators of mmcv, see docs/packages.md first')
TASK_LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


def check_requirements() -> None:
    """Checks that torch, mmengine and mmcv are importable and recent enough.

    Raises:
        ImportError: Names what is missing or too old, what was found and what to install.
    """
    for name, minimum in MINIMUM.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmfeatdistill {__version__} needs {name} >= {minimum}, which is not '
                              f'installed; {INSTALL_HINT}.')
    from mmengine.utils import digit_version

    for name, minimum in MINIMUM.items():
        found = importlib.import_module(name).__version__
        # The numbers alone: NVIDIA's containers call their builds of a release alphas of it.
        if digit_version(found)[:4] < digit_version(minimum)[:4]:
            raise ImportError(f'mmfeatdistill {__version__} needs {name} >= {minimum}, found {found}; '
                              f'{INSTALL_HINT}.')


def versions() -> str:
    """What figures depend on: versions, and the kernels of the processor, as those of another round differently.

    Returns:
        str: Such as ``'mmfeatdistill 0.4.0, Python 3.11.7, torch 2.11.0, mmengine 0.10.12, CPU kernels for AVX512'``.
    """
    import mmengine
    import torch

    return (f'mmfeatdistill {__version__}, Python {platform.python_version()}, torch {torch.__version__}, mmengine '
            f'{mmengine.__version__}, CPU kernels for {torch.backends.cpu.get_cpu_capability()}')


def make_stock_configs_resolvable() -> None:
    """Lets ``mmseg::...`` resolve in the maintained family too.

    mmengine looks a package up under the distribution name in its ``MODULE2PACKAGE`` table. The
    maintained mmseg is distributed under another name, so ``mmseg::`` is reported as not installed
    and ``mmengine.hub.get_config`` even installs the original distribution over it. Mapping the
    module to its own name makes mmengine fall back to the importable module, as it does for mmdet.

    The configs of this project are reached the same way: ``mmfeatdistill::ofd/ofd_resnet18-w8_digits.py``.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module, name in MODULE2PACKAGE.items():
        if name != module and importlib.util.find_spec(module) is not None:
            try:
                distribution(name)
            except PackageNotFoundError:
                MODULE2PACKAGE[module] = module
    # A module, and the name of no distribution: mmengine then takes the folder that the module is in, which is right
    # for an editable install too, whose distribution lies elsewhere. It has to be one of the package's top level.
    MODULE2PACKAGE['mmfeatdistill'] = version.__name__


def stock_config(name: str) -> str:
    """The path of a config file that an installed MM library ships.

    It finds the file without parsing anything, in either package family. In a config file it serves
    where mmengine itself cannot resolve ``mmseg::`` yet, because nothing imported this package:
    ``_base_ = [__import__('mmfeatdistill').stock_config('mmseg::_base_/models/fcn_unet_s5-d16.py')]``.
    A config of this project is inherited the same way: after a plain ``mmfeatdistill::`` mmengine would look for the
    student's datasets and models in this project.

    Args:
        name (str): ``'<library>::<path below its configs folder>'``.

    Returns:
        str: Absolute path.

    Raises:
        ImportError: The library is not installed.
        ValueError: The name has another form.
        FileNotFoundError: The library ships no such file; names the nearest.

    Examples:
        >>> stock_config('mmpretrain::_base_/models/resnet18.py').endswith('models/resnet18.py')
        True
    """
    library, separator, path = name.partition('::')
    if not separator or not path:
        raise ValueError(f"A stock config is written '<library>::<path>', as in "
                         f"'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', got {name!r}.")
    from mmengine.utils import scandir
    folder = config_folder(library)
    found = osp.join(folder, path)
    if not osp.isfile(found):
        shipped = scandir(folder, suffix='.py', recursive=True)
        raise FileNotFoundError(f'{library} ships no config {path!r}{did_you_mean(path, shipped)}')
    return found


def config_folder(library: str) -> str:
    """The folder with the configs that an installed MM library ships (``<library>/.mim/configs``).

    Args:
        library (str): Import name, such as ``'mmdet'``.

    Returns:
        str: Absolute path.

    Raises:
        ImportError: The library is not installed, or ships no configs.
    """
    spec = importlib.util.find_spec(library) if library.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ImportError(f'{library!r} is not installed{did_you_mean(library, TASK_LIBRARIES)} '
                          f'To have it, {INSTALL_HINT}.')
    folder = osp.join(osp.dirname(spec.origin), '.mim', 'configs')
    if not osp.isdir(folder):
        raise ImportError(f'{library} was installed without its configs (no folder {folder}); '
                          'install it from a wheel, not from a bare source tree.')
    return folder
