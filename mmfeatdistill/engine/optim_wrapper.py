"""Mixed precision where mmengine's ``AmpOptimWrapper`` cannot be had: on a CPU."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmfeatdistill.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Trains on a CPU in bfloat16 where that is safe, and in float32 elsewhere.

    mmengine's ``AmpOptimWrapper`` needs a GPU. bfloat16 has the range of float32, so no loss is scaled here. It takes
    the options of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """What a forward pass runs in."""
        with super().optim_context(model), autocast('cpu', torch.bfloat16):
            yield
