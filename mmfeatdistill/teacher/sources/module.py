"""Networks that a function of the user builds."""
import importlib
from collections.abc import Mapping
from typing import Any, Optional

from torch import nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.registry import MODELS, TEACHER_SOURCES
from mmfeatdistill.teacher.sources.library_network import LibraryNetwork


@MODELS.register_module()
@TEACHER_SOURCES.register_module(name='module')
class ModuleNetwork(LibraryNetwork):
    """A network of whatever a function or class of the user gives; what images it takes has to be stated.

    Args:
        name (str): ``'my_package.my_module:build'``: what is called, and where it is imported from.
        arguments (dict, optional): What it is called with.
        pretrained (bool): Whether what it returns has its weights already. Defaults to False.

    Raises:
        ImportError: There is no such module.
        ValueError: The name has another form, or the module has no such function.
        TypeError: It returns no ``nn.Module``.

    Examples:
        >>> ModuleNetwork('torch.nn:Conv2d', dict(in_channels=3, out_channels=4, kernel_size=1)).backbone
        Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1))
    """

    def __init__(self, name: str, arguments: Optional[Mapping[str, Any]] = None, pretrained: bool = False) -> None:
        module, separator, attribute = name.partition(':')
        if not (module and separator and attribute):
            raise ValueError(f"module: expected 'package.module:function', got {name!r}.")
        found = importlib.import_module(module)
        if not hasattr(found, attribute):
            raise ValueError(f'module: {module} has no {attribute!r}{did_you_mean(attribute, dir(found))}')
        network = getattr(found, attribute)(**(arguments or {}))
        if not isinstance(network, nn.Module):
            raise TypeError(f'module: {name!r} returned {network!r:.100}, and no nn.Module.')
        super().__init__(network, None)
