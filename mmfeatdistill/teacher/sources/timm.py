"""Networks of timm."""
import logging
from collections.abc import Mapping
from typing import Any, Optional

from mmengine.logging import print_log
from torch import nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.registry import MODELS, TEACHER_SOURCES
from mmfeatdistill.teacher.sources.library_network import LibraryNetwork, Normalization, import_library

_ANY_SIZE: tuple[dict[str, Any], ...] = (dict(dynamic_img_size=True), dict(strict_img_size=False))
"""By what arguments networks of a fixed size take others: vision transformers, and Swin transformers."""


@MODELS.register_module()
@TEACHER_SOURCES.register_module(name='timm')
class TimmNetwork(LibraryNetwork):
    """A network of timm, with the normalization of its ``pretrained_cfg``.

    Where timm's network would take images of one size only and has an option for others, it is built with that option;
    on its own size it gives the same.

    Args:
        name (str): As for ``timm.create_model``: ``'vit_small_patch16_dinov3.lvd1689m'``, or one that begins with
            ``'hf-hub:'`` or ``'local-dir:'``.
        arguments (dict, optional): Further arguments of ``timm.create_model``, such as ``num_classes``.
        pretrained (bool): Whether timm loads its own weights. Defaults to False.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such network, or refuses the arguments.

    Examples:
        >>> TimmNetwork('resnet18').data_preprocessor.mean.flatten()  # doctest: +SKIP
        tensor([123.6750, 116.2800, 103.5300])
    """

    def __init__(self, name: str, arguments: Optional[Mapping[str, Any]] = None, pretrained: bool = False) -> None:
        timm = import_library('timm')
        if ':' not in name and not timm.is_model(name):
            architecture = name.partition('.')[0]
            raise ValueError(f'timm {timm.__version__} has no network {name!r}'
                             f'{did_you_mean(architecture, timm.list_models())}')
        network, is_fixed = _create(timm, name, dict(arguments or {}), pretrained)
        data = timm.data.resolve_model_data_config(network)
        super().__init__(network, Normalization.of_unit_range(data['mean'], data['std']),
                         getattr(network, 'num_classes', None), data['input_size'][-1] if is_fixed else None)


def timm_normalization(model: nn.Module) -> Optional[Normalization]:
    """What images timm's own weights are of, for a network of timm that stands inside of an MM model.

    Args:
        model (nn.Module): Such as mmpretrain's ``TimmClassifier``, or a model with its ``TIMMBackbone``.

    Returns:
        Normalization: None where the model holds no network of timm, or timm does not tell.

    Examples:
        >>> timm_normalization(nn.Conv2d(3, 4, 1)) is None
        True
    """
    network = next((module for module in model.modules()
                    if type(module).__module__.startswith('timm.') and getattr(module, 'pretrained_cfg', None)), None)
    if network is None:
        return None
    data = import_library('timm').data.resolve_model_data_config(network)
    return Normalization.of_unit_range(data['mean'], data['std'])


def _create(timm: Any, name: str, arguments: dict[str, Any], pretrained: bool) -> tuple[nn.Module, bool]:
    """The network, and whether it takes images of one size only."""
    try:
        config = timm.get_pretrained_cfg(name.partition('.')[0]) if ':' not in name else None
        if config is not None and config.fixed_input_size and 'img_size' not in arguments:
            for option in _ANY_SIZE:
                try:
                    return timm.create_model(name, pretrained=pretrained, **(option | arguments)), False
                except TypeError as error:
                    if next(iter(option)) not in str(error):
                        raise
        network = timm.create_model(name, pretrained=pretrained, **arguments)
    except (RuntimeError, AssertionError) as error:  # an unknown tag, an option that does not go with the network
        raise ValueError(f'timm cannot build {name!r}: {error}') from error
    is_fixed = network.pretrained_cfg.get('fixed_input_size', False)
    if is_fixed:
        print_log(f"timm's {name!r} takes images of one size only.", logger='current', level=logging.WARNING)
    return network, is_fixed
