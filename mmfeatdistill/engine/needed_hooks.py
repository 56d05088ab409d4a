"""The hooks that every distillation needs, registered by the runner itself where a config has not named them."""
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import FlexibleRunner, Runner

from mmfeatdistill.checkpoints.atomic_backend import checkpoint_folder
from mmfeatdistill.distill_config import is_distillation
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.engine.disk_faults import disk_faults_explained
from mmfeatdistill.engine.hooks._objectives import unwrap
from mmfeatdistill.engine.hooks.acceleration_hook import AccelerationHook
from mmfeatdistill.engine.hooks.exact_resume_hook import ExactResumeHook
from mmfeatdistill.engine.hooks.report_hook import ReportHook
from mmfeatdistill.engine.hooks.statistics_hook import StatisticsHook
from mmfeatdistill.engine.hooks.student_checkpoint_hook import StudentCheckpointHook
from mmfeatdistill.engine.work_dir_lock import only_training_in
from mmfeatdistill.errors import ConfigError

_WITH_OWN_CHECKPOINTS = {'DeepSpeedStrategy', 'ColossalAIStrategy'}
_NEEDED = (StudentCheckpointHook, ExactResumeHook, StatisticsHook, AccelerationHook, ReportHook)


def register_needed_hooks(runner: Any) -> None:
    """Registers the hooks that a distillation needs.

    Where one of them is a :class:`StudentCheckpointHook`, the config has named those that it wants, and they stay as
    they are: ``configs/_base_/distill.py`` spells all of them out, and a list without ``ExactResumeHook`` does without.

    Args:
        runner (Runner): With the hooks of its config. One that trains no distillation is left as it is.

    Raises:
        ConfigError: Its strategy writes checkpoints of its own, past every hook.
    """
    if not _is_distilled(runner.model):
        return
    _check_strategy(getattr(runner, 'strategy', None))
    if any(isinstance(hook, StudentCheckpointHook) for hook in runner.hooks):
        return
    for cls in _NEEDED:
        if not any(isinstance(hook, cls) for hook in runner.hooks):
            runner.register_hook(cls())


def guard_training(runner: Any) -> None:
    """Lets a distillation be the only training in its work directory, and say what to do where a disk fails.

    Args:
        runner (Runner): With its hooks. One that trains no distillation is left as it is.
    """
    if not _is_distilled(runner.model):
        return
    train = runner.train

    @wraps(train)
    def guarded() -> Any:
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        folder = None if hook is None else checkpoint_folder(hook, runner.work_dir)
        with disk_faults_explained(runner.work_dir, folder, None if hook is None else hook.filename_tmpl):
            with only_training_in(runner.work_dir) if is_main_process() else nullcontext():
                return train()
    runner.train = guarded


def _check_strategy(strategy: Any) -> None:
    for cls in type(strategy).__mro__:
        if cls.__name__ in _WITH_OWN_CHECKPOINTS:
            raise ConfigError(
                f'strategy.type: {cls.__name__} saves checkpoints past the hooks of mmengine, so that connectors would '
                "be among the student's tensors and could not be resumed exactly. Use 'DDPStrategy', or "
                "'mmfeatdistill.FSDPStrategy' for a student that is trained in shards.")


def _is_distilled(model: Any) -> bool:
    """Whether a runner's model is a distillation; a ``FlexibleRunner`` has its config until it trains."""
    if isinstance(model, Mapping):
        return is_distillation(Config(dict(model=model)))
    return isinstance(unwrap(model), FeatureDistiller)


def _then_needed_hooks(register_hooks: Callable) -> Callable:
    @wraps(register_hooks)
    def register(runner: Any, *args: Any, **kwargs: Any) -> None:
        register_hooks(runner, *args, **kwargs)
        register_needed_hooks(runner)
        guard_training(runner)
    return register


def install() -> None:
    """Lets every runner of this process register them, also that of a library's own ``tools/train.py``.

    A student with ``custom_hooks`` of its own cannot inherit others, as mmengine refuses two bases that have the same
    key. MMEngine gives a model no way to bring hooks along: it never sees the runner.
    """
    for runner in (Runner, FlexibleRunner):
        if not hasattr(runner.register_hooks, '__wrapped__'):
            runner.register_hooks = _then_needed_hooks(runner.register_hooks)


install()
