"""The student of a distillation as the MM libraries run it, without this project."""
import inspect
import re
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmfeatdistill.distill_config import is_distillation, student_config
from mmfeatdistill.registry import HOOKS, SCOPE

STUDENT_FILE = '_student.py'
"""How the config of the student ends that lies in a work directory."""

_LIBRARY_FIX = re.compile(rf'{SCOPE}\.zoo\.\w+_fix')
"""How modules are called that fix a part of a library on import."""

_OF_THE_RUN = {'self', 'cfg', 'work_dir', 'load_from', 'resume', 'launcher', 'experiment_name'}
_READ_BESIDES = {'runner_type', 'custom_imports', 'auto_scale_lr', 'tta_model', 'tta_pipeline', 'train_pipeline',
                 'val_pipeline', 'test_pipeline'}
"""What the MM libraries' commands and inferencers read of a config, in addition to the settings of a runner."""


def stock_student(trained: Config) -> Config:
    """The config of the student alone, as a stock command runs it without this project.

    What was there for distillation only goes, and so does what belongs to one run: folders, resuming, the launcher.
    A student that is made of parts of this project still needs it.

    Args:
        trained (Config): As it was trained, distilled or not.

    Returns:
        Config: The settings that a runner or a library's own commands read.
    """
    cfg = student_config(trained) if is_distillation(trained) else trained
    kept = (set(inspect.signature(Runner.__init__).parameters) - _OF_THE_RUN) | _READ_BESIDES
    settings: dict[str, Any] = {key: value for key, value in cfg.to_dict().items() if key in kept}
    hooks = [hook for hook in settings.pop('custom_hooks', None) or [] if not _is_our_hook(hook.get('type'))]
    if hooks:
        settings['custom_hooks'] = hooks
    imports = settings.pop('custom_imports', None) or dict(imports=[])
    names = [imports['imports']] if isinstance(imports['imports'], str) else imports['imports']
    # What is ours is found by its scope, but for what fixes a part of a library that the student is made of.
    if others := [name for name in names if not is_ours(f'{name}.') or _LIBRARY_FIX.fullmatch(name)]:
        settings['custom_imports'] = {**imports, 'imports': others}
    return Config(settings)


def _is_our_hook(name: Any) -> bool:
    """Whether a hook is one of this project, which may be written without its scope."""
    found = HOOKS.get(name) if isinstance(name, str) and '.' not in name else None
    return is_ours(name) or is_ours(getattr(found, '__module__', None))


def readable_text(cfg: Config) -> str:
    """A config as Python code that can be loaded: mmengine 0.10 writes infinity as ``inf``, which no file defines.

    Args:
        cfg (Config): Any.

    Returns:
        str: Its text.

    Examples:
        >>> Config.fromstring(readable_text(Config(dict(margin=float('inf')))), '.py').margin
        inf
    """
    return ''.join(f"{name} = float('{name}')\n" for name in ('inf', 'nan')
                   if re.search(rf'[=(\[ -]{name}[,)\]\n]', cfg.pretty_text)) + cfg.pretty_text


def is_ours(name: Any) -> bool:
    """Whether a type or module is one of this project.

    Examples:
        >>> is_ours('mmfeatdistill.AlignmentHook'), is_ours('EMAHook')
        (True, False)
    """
    return isinstance(name, str) and name.startswith(f'{SCOPE}.')
