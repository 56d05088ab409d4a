"""BatchNorm by the statistics of the batch, without a trace in the running ones."""
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
        >>> with batch_statistics(norm):
        ...     norm(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.0000],
                [ 1.0000]], grad_fn=<NativeBatchNormBackward0>)
        >>> norm.running_mean, norm.training
        (tensor([0.]), False)
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    states = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            # So set, BatchNorm and SyncBatchNorm hand no running statistics to their kernels.
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, state in zip(norms, states):
            norm.training, norm.track_running_stats = state
