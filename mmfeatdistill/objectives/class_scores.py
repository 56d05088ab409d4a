"""What the class scores of a head are: one distribution over the classes, or a yes or no for each."""
import logging
from collections.abc import Sequence
from typing import Optional

from mmengine.logging import print_log
from torch import nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.base import TapPair
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tap import Tap

_CLASS_LOSSES = ('loss_module', 'loss_decode', 'loss_cls')
"""What heads of mmpretrain, mmseg and mmdet call the loss of their classes."""


def check_softmax(method: str, taps: Sequence[TapPair], student: TappedPass, teachers: Sequence[TappedPass],
                  key: str) -> None:
    """Refuses a softmax over classes of which several, or none, may hold, and warns of one over others.

    A head whose loss is a sigmoid for each class tells how sure it is of each; a softmax over the classes leaves of
    that only how they compare. Where exactly one class holds, as in a classifier that was trained by binary
    cross-entropy, this is a part of what the head has learned; in a detector it is not even that, as a channel is one
    class of one anchor, and most positions have no object.

    Args:
        method (str): What takes the softmax.
        taps (Sequence[TapPair]): What is matched.
        student (TappedPass): The student in the dry run.
        teachers (Sequence[TappedPass]): Each teacher that is read.
        key (str): Of the taps in the config.

    Raises:
        ConfigError: A tap gives such scores.
    """
    places = [*(('student', student, pair.student) for pair in taps),
              *(('teacher', teacher, pair.teacher) for teacher in teachers for pair in taps)]
    for side, tapped, tap in places:
        head = _head_of_scores(tapped, tap)
        if head is None or not (_has_several_labels(head) or _is_sigmoid(_class_loss(head))):
            continue
        said = f"{key}: {type(head).__name__} takes a sigmoid for each class of the {side}'s {tap.text!r}"
        instead = "dict(type='SquaredError') compares the logits themselves"
        if _has_several_labels(head) or hasattr(head, 'loss_cls'):
            raise ConfigError(f'{said}, of which several or none may hold, and {method} takes a softmax over all '
                              f"channels. As a loss, {instead}; of dense detectors, the objective type='CrossHead' "
                              'compares scores and boxes. Or match features, such as those of the neck.')
        print_log(f'{said} in its loss, and {method} takes a softmax over them, which leaves out how sure it is of all '
                  f'of them together; {instead}.', logger='current', level=logging.WARNING)


def _head_of_scores(tapped: TappedPass, tap: Tap) -> Optional[nn.Module]:
    """The innermost module around a tap that has a loss of classes; None where the tap gives no predictions."""
    if tap.text not in tapped.reader.predictions:
        return None
    path = tap.place.path.split('.')
    named = dict(tapped.model.named_modules(remove_duplicate=False))
    around = (named.get('.'.join(path[:end])) for end in range(len(path), 0, -1))
    return next((module for module in around if _class_loss(module) is not None), None)


def _class_loss(head: Optional[nn.Module]) -> Optional[nn.Module]:
    found = (getattr(head, name, None) for name in _CLASS_LOSSES)
    return next((loss for loss in found if isinstance(loss, nn.Module)), None)


def _is_sigmoid(loss: Optional[nn.Module]) -> bool:
    """Whether all of a loss that says so takes sigmoids; a list of losses may have one beside a cross-entropy."""
    said = [module.use_sigmoid for module in loss.modules() if hasattr(module, 'use_sigmoid')] if loss else []
    return bool(said) and all(said)


def _has_several_labels(head: nn.Module) -> bool:
    """Whether an image may be of several classes, whatever the loss says of itself."""
    return any(cls.__name__ == 'MultiLabelClsHead' for cls in type(head).__mro__)
