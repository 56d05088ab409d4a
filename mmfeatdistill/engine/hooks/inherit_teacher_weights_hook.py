"""A student whose neck and heads start from the teacher's."""
from collections.abc import Mapping, Sequence
from typing import Any, Union

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmfeatdistill.engine.hooks._objectives import teachers_of, unwrap
from mmfeatdistill.errors import ConfigError, config_key, did_you_mean
from mmfeatdistill.objectives import TapPair
from mmfeatdistill.registry import HOOKS

_KEY = 'custom_hooks.InheritTeacherWeightsHook'


@HOOKS.register_module()
class InheritTeacherWeightsHook(Hook):
    """Copies the teacher's weights into parts of the student before the first iteration, wherever the shapes agree.

    The inheriting strategy of MGD and FCFD (arXiv 2304.11832, section 4.3): neck, RPN and RoI head of the student start
    from the teacher's. What was taken and what was not is logged. A resumed training is left alone; weights of
    ``load_from`` are overwritten in the parts that are named.

    Args:
        parts (list): Modules: ``['neck', 'rpn_head', 'roi_head']``, or ``dict(student='neck', teacher='neck')`` where
            their names differ.
        teacher (int): Position of the teacher. Defaults to 0.

    Raises:
        ConfigError: There is no such part or teacher, or nothing in it agrees.
    """

    def __init__(self, parts: Sequence[Union[str, Mapping]], teacher: int = 0) -> None:
        if isinstance(parts, (str, Mapping)) or not parts:
            raise ConfigError(f"{_KEY}.parts: expected a list such as ['neck', 'roi_head'], "
                              f'got {parts!r}.')
        with config_key(f'{_KEY}.parts'):
            self.parts = [TapPair.parse(part) for part in parts]
        if not isinstance(teacher, int):
            raise ConfigError(f'{_KEY}.teacher: expected the position of a teacher (0, 1, ...), got '
                              f'{teacher!r}.')
        self.teacher = teacher

    def before_train(self, runner: Any) -> None:
        """Copies, unless the training was resumed."""
        if runner.iter > 0:
            return
        model = unwrap(runner.model)
        teachers = teachers_of(model)
        if not 0 <= self.teacher < len(teachers):
            raise ConfigError(f'{_KEY}.teacher: there is no teacher {self.teacher}; the model has '
                              f'{len(teachers)}.')
        if teachers[self.teacher].is_accelerated:
            raise ConfigError(f'{_KEY}: the weights of the teacher are not those of its file any '
                              'more, as its acceleration changes them; leave everything but channels_last out of it.')
        for part in self.parts:
            student = _part(model.student, part.student.text, 'student')
            report = inherit(student, _part(teachers[self.teacher].model, part.teacher.text, 'teacher'))
            if not report['taken']:
                raise ConfigError(f'{_KEY}.parts: nothing of {part.student.text!r} has the same name and '
                                  f'shape in the teacher\'s {part.teacher.text!r}; remove it.')
            left = f'; left as they were: {", ".join(report["left"])}' if report['left'] else ''
            print_log(f"Inherited {len(report['taken'])} tensors of {part.student.text!r} from the teacher{left}.",
                      logger='current')


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module) -> dict[str, list[str]]:
    """Copies parameters and buffers of the same name and shape.

    Args:
        student (nn.Module): Is changed in place.
        teacher (nn.Module): Is left alone.

    Returns:
        dict[str, list[str]]: The names that were ``'taken'`` and, with both shapes, those that were ``'left'``.

    Examples:
        >>> student = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> inherit(student, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))['taken']
        ['0.weight', '0.bias']
    """
    theirs = teacher.state_dict()
    report: dict[str, list[str]] = dict(taken=[], left=[])
    for name, own in student.state_dict().items():
        if name in theirs and theirs[name].shape == own.shape:
            own.copy_(theirs[name])
            report['taken'].append(name)
        else:
            shape = tuple(theirs[name].shape) if name in theirs else 'nothing'
            report['left'].append(f'{name} ({tuple(own.shape)}, the teacher has {shape})')
    return report


def _part(model: nn.Module, path: str, owner: str) -> nn.Module:
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    if path not in names:
        raise ConfigError(f'{_KEY}.parts: the {owner} has no {path!r}{did_you_mean(path, names)}')
    return model.get_submodule(path)
