"""Networks without random weights, for those that are loaded."""
from collections.abc import Callable, Iterable
from typing import Any, Optional

from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS = (Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_, init.kaiming_uniform_)


class Undrawn(TorchFunctionMode):
    """A context in which the parameters of new modules keep whatever values their memory has.

    Drawing random weights takes most of the time that a network is built in; where all parameters are loaded from a
    checkpoint afterwards, it is for nothing. Constant initialisations and buffers are as always.

    Examples:
        >>> state = torch.get_rng_state()
        >>> with Undrawn():
        ...     model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> torch.equal(torch.get_rng_state(), state), model[1].weight.sum().item()
        (True, 4.0)
    """

    def __torch_function__(self, func: Callable, types: Iterable[type], args: tuple = (),
                           kwargs: Optional[dict[str, Any]] = None) -> Any:
        """Leaves out what would draw the values of a parameter."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs['tensor']
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)
