"""BatchNorm in passes that must leave no trace in the running statistics."""
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    r"""Lets every BatchNorm of a network normalise as in training, and leaves its running statistics alone.

    .. math:: y = \gamma \, \frac{x - \mathrm{mean}_{n,i}(x)}{\sqrt{\mathrm{var}_{n,i}(x) + \epsilon}} + \beta

    All else keeps its mode: Dropout and DropPath of a teacher stay off.

    Args:
        model (nn.Module): The network.

    Examples:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> with batch_statistics(norm), torch.no_grad():
        ...     norm(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.0000,  1.0000])
        >>> norm.running_mean, norm.training
        (tensor([0.]), False)
    """
    norms = _norms(model)
    modes = [norm.training for norm in norms]
    try:
        for norm in norms:
            norm.training = True
        with untracked_statistics(model):
            yield
    finally:
        for norm, mode in zip(norms, modes):
            norm.training = mode


@contextmanager
def untracked_statistics(model: nn.Module) -> Iterator[None]:
    """Stops every BatchNorm of a network from updating its running statistics; each keeps its mode.

    Args:
        model (nn.Module): The network.

    Examples:
        >>> norm = nn.BatchNorm1d(1)
        >>> with untracked_statistics(norm), torch.no_grad():
        ...     norm(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.0000,  1.0000])
        >>> norm.running_mean
        tensor([0.])
    """
    norms = _norms(model)
    tracking = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            # In training mode, BatchNorm and SyncBatchNorm then hand no running statistics to their kernels.
            norm.track_running_stats = False
        yield
    finally:
        for norm, tracks in zip(norms, tracking):
            norm.track_running_stats = tracks


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
