"""Training in shards."""
from typing import Any

from mmengine._strategy import FSDPStrategy as _FSDPStrategy
from mmengine.device import get_device
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmfeatdistill.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(_FSDPStrategy):
    """mmengine's ``FSDPStrategy``, whose trainings can also be distilled and resumed.

    The teachers are in no shard: every process has complete ones, on its device. And mmengine restores the state of the
    optimizer with the arguments of PyTorch 2.0, which no later version understands. It takes the options of mmengine's
    strategy.
    """

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Restores the state of the optimizer."""
        self.optim_wrapper.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict))

    def _wrap_model(self, model: nn.Module) -> Any:
        # FSDP moves parameters and buffers one by one, without asking the model.
        for teacher in getattr(model, 'teachers', ()):
            teacher.apply_to_tensors(lambda tensor: tensor.to(get_device()))
        return super()._wrap_model(model)
