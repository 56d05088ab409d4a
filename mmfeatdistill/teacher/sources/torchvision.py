"""Networks of torchvision."""
import inspect
from collections.abc import Mapping
from typing import Any, Optional

from torch import nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.registry import MODELS, TEACHER_SOURCES
from mmfeatdistill.teacher.sources.library_network import LibraryNetwork, Normalization, import_library


@MODELS.register_module()
@TEACHER_SOURCES.register_module(name='torchvision')
class TorchvisionNetwork(LibraryNetwork):
    """A classifier or segmenter of torchvision, with the normalization of its weights' own transforms.

    Args:
        name (str): As for ``torchvision.models.get_model``: ``'resnet50'``.
        arguments (dict, optional): Further arguments of the network, such as ``num_classes``; ``weights`` names one of
            several sets of weights, such as ``'IMAGENET1K_V2'``, whose transforms count.
        pretrained (bool): Whether torchvision loads these weights. Defaults to False.

    Raises:
        ImportError: torchvision is not installed.
        ValueError: torchvision has no such network or weights, or it is a network that takes no batch of images.

    Examples:
        >>> TorchvisionNetwork('resnet18').data_preprocessor.std.flatten()
        tensor([58.3950, 57.1200, 57.3750])
    """

    def __init__(self, name: str, arguments: Optional[Mapping[str, Any]] = None, pretrained: bool = False) -> None:
        models = import_library('torchvision').models
        known = models.list_models()
        if name not in known:
            raise ValueError(f'torchvision has no network {name!r}{did_you_mean(name, known)}')
        options = dict(arguments or {})
        weights = _weights(models, name, options.pop('weights', 'DEFAULT'))
        transforms = weights.transforms()
        if not hasattr(transforms, 'mean') or not hasattr(transforms, 'resize_size'):
            raise ValueError(f'torchvision\'s {name!r} takes no batch of images that are normalized for it, as its '
                             'classifiers and segmenters do; give its backbone by '
                             "teacher=dict(module='my_package:build', input=dict(...)).")
        if 'weights_backbone' in inspect.signature(models.get_model_builder(name)).parameters:
            options.setdefault('weights_backbone', None)
        network = models.get_model(name, weights=weights if pretrained else None, **options)
        super().__init__(network, Normalization.of_unit_range(transforms.mean, transforms.std),
                         _num_classes(network), getattr(network, 'image_size', None))


def _weights(models: Any, name: str, wanted: str) -> Any:
    known = models.get_model_weights(name).__members__
    if wanted not in known:
        raise ValueError(f"torchvision's {name!r} has no weights {wanted!r}{did_you_mean(str(wanted), known)} There "
                         f'are {", ".join(known)}.')
    return known[wanted]


def _num_classes(network: nn.Module) -> Optional[int]:
    """Of a classifier, which ends in a linear layer."""
    last = [module for module in network.modules() if next(module.children(), None) is None and
            isinstance(module, (nn.Linear, nn.Conv2d))][-1:]
    return last[0].out_features if last and isinstance(last[0], nn.Linear) else None
