"""Dense heads of mmdet: what their outputs mean, and how many positions of a batch have an object."""
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.losses import box_distance, distribution_divergence

_NEEDED = ('prior_generator', 'cls_out_channels', 'bbox_coder', 'get_targets', 'loss_by_feat')


class Level(NamedTuple):
    """What a head predicts on one level, with one row for each anchor of each position of each image.

    Attributes:
        logits (Tensor): Of the classes, shape (R, K).
        boxes (Tensor): Corners in pixels, shape (R, 4); or the logits of the distributions of the four distances to the
            sides, shape (R, 4, bins).
        centerness (Tensor, optional): Its logits, shape (R, 1); None where the head has none.
    """

    logits: Tensor
    boxes: Tensor
    centerness: Optional[Tensor]


def check_head(head: Any, side: str) -> None:
    """Refuses a head whose outputs are not known here.

    Args:
        head (nn.Module): What stands in the place of a detector's ``bbox_head``.
        side (str): Whose it is, for the message.

    Raises:
        ValueError: It lacks what is needed, or its scores are no sigmoids.
    """
    missing = [name for name in _NEEDED if not hasattr(head, name)]
    if missing:
        raise ValueError(f"the {side}'s head is {type(head).__name__}, which has no {missing[0]!r}; a dense head of "
                         'mmdet is needed, such as GFLHead, ATSSHead, RetinaHead, FCOSHead or RTMDetSepBNHead.')
    if not getattr(head, 'use_sigmoid_cls', False):
        raise ValueError(f"the {side}'s {type(head).__name__} scores classes by a softmax; a head with sigmoids "
                         '(use_sigmoid=True in its loss_cls) is needed.')


def levels_of(head: Any, outputs: Sequence[Tensor]) -> list[Level]:
    """Reads the outputs of a head in eval mode.

    Args:
        head (nn.Module): One that :func:`check_head` accepts.
        outputs (Sequence[Tensor]): All that it returns: the scores of each level, then the boxes, then perhaps the
            centerness; each of shape (N, A * width, H, W).

    Returns:
        list[Level]: From the first level to the last.

    Raises:
        ValueError: There are more or fewer, or boxes in a form that is not known here.
    """
    count, anchors = head.prior_generator.num_levels, head.prior_generator.num_base_priors
    kinds = [list(outputs[start:start + count]) for start in range(0, len(outputs), count)]
    bins = head.reg_max + 1 if hasattr(head, 'integral') else 0
    widths = (head.cls_out_channels, 4 * bins if bins else 4, 1)
    wanted = [[width * number for number in anchors] for width in widths[:len(kinds)]]
    given = [[output.shape[1] for output in of_kind] for of_kind in kinds]
    if len(kinds) not in (2, 3) or given != wanted:
        raise ValueError(f'{type(head).__name__} gives {len(outputs)} outputs of {given} channels, by level, which are '
                         f'not scores of {head.cls_out_channels} classes, boxes and perhaps centerness; heads such as '
                         'GFLHead, ATSSHead, RetinaHead, FCOSHead and RTMDetSepBNHead are known.')
    rows = [[_rows(output, width) for output in of_kind] for of_kind, width in zip(kinds, widths)]
    centerness = rows[2] if len(rows) == 3 else [None] * count
    if bins:
        boxes = [of_level.view(-1, 4, bins) for of_level in rows[1]]
    else:
        priors = _priors(head, kinds[1])
        boxes = [head.bbox_coder.decode(prior.repeat(output.shape[0], 1), of_level)
                 for prior, output, of_level in zip(priors, kinds[1], rows[1])]
    return [Level(*parts) for parts in zip(rows[0], boxes, centerness)]


def distances_of_boxes(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the boxes of a level are from the teacher's.

    Args:
        student (Tensor): See :class:`Level`.
        teacher (Tensor): Of the same shape, without gradient.

    Returns:
        Tensor: One for each row, shape (R): :func:`mmfeatdistill.losses.box_distance` of corners, the mean over the
        sides of :func:`mmfeatdistill.losses.distribution_divergence` of distributions.

    Examples:
        >>> distances_of_boxes(torch.zeros(2, 4, 17), torch.zeros(2, 4, 17))
        tensor([0., 0.])
    """
    if student.dim() == 2:
        return box_distance(student, teacher)
    return distribution_divergence(student.flatten(0, 1), teacher.flatten(0, 1)).view(-1, 4).mean(1)


def check_same_anchors(student: Any, teacher: Any, outputs: Sequence[Tensor]) -> None:
    """Refuses heads of which a position means something else.

    Args:
        student (nn.Module): The student's head.
        teacher (nn.Module): The teacher's.
        outputs (Sequence[Tensor]): Of one of them, for the sizes of its levels.

    Raises:
        ValueError: Their classes, levels or anchors differ.
    """
    classes = student.cls_out_channels, teacher.cls_out_channels
    if classes[0] != classes[1]:
        raise ValueError(f"the student's head has {classes[0]} classes and the teacher's {classes[1]}; they have to be "
                         'the same ones.')
    count = student.prior_generator.num_levels
    if count == teacher.prior_generator.num_levels:
        own, theirs = (_priors(head, outputs[:count]) for head in (student, teacher))
        if all(a.shape == b.shape and torch.allclose(a, b) for a, b in zip(own, theirs)):
            return
    raise ValueError("the anchors of the two heads differ, so that a prediction of the teacher's head means another "
                     f"place than one of the student's: {_anchors(student)}, and {_anchors(teacher)}. Take a teacher "
                     'with the same strides and anchors.')


@torch.no_grad()
def count_positives(head: Any, outputs: Sequence[Tensor], data_samples: Sequence[Any]) -> int:
    """How many anchors of a batch the head's own assignment gives an object.

    The head's own loss is entered, and left as soon as it has its targets; so it costs one more assignment.

    Args:
        head (nn.Module): The head that is trained.
        outputs (Sequence[Tensor]): All that it returned for the batch.
        data_samples (Sequence): Of the batch, with their labels.

    Returns:
        int: Their number in all images; 0 where nothing is labeled.

    Raises:
        ValueError: The targets have no labels, or there are none.
    """
    count = head.prior_generator.num_levels
    kinds = [list(outputs[start:start + count]) for start in range(0, len(outputs), count)]
    own = head.get_targets

    def leave(*args: Any, **kwargs: Any) -> NoReturn:
        raise _Targets(own(*args, **kwargs))

    replaced = vars(head).get('get_targets')
    head.get_targets = leave
    try:
        head.loss_by_feat(*kinds, [sample.gt_instances for sample in data_samples],
                          [sample.metainfo for sample in data_samples],
                          batch_gt_instances_ignore=[getattr(sample, 'ignored_instances', None)
                                                     for sample in data_samples])
    except _Targets as found:
        targets = found.args[0]
    else:
        raise ValueError(f'{type(head).__name__} finds its targets otherwise than by get_targets().')
    finally:
        if replaced is None:
            del head.get_targets
        else:
            head.get_targets = replaced
    # Scores, weights and boxes are no integers.
    for part in targets:
        if isinstance(part, (list, tuple)) and len(part) and all(
                isinstance(item, Tensor) and item.dtype == torch.long for item in part):
            return int(sum(((labels >= 0) & (labels < head.num_classes)).sum() for labels in part))
    raise ValueError(f'the targets of {type(head).__name__} hold no labels, by which positives could be counted.')


class _Targets(BaseException):
    """Leaves a loss with its targets."""


def _rows(output: Tensor, width: int) -> Tensor:
    return output.permute(0, 2, 3, 1).reshape(-1, width)


def _priors(head: nn.Module, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Anchors or points of each level."""
    return head.prior_generator.grid_priors(  # type: ignore[operator, union-attr]
        [output.shape[-2:] for output in outputs], dtype=outputs[0].dtype, device=outputs[0].device)


def _anchors(head: Any) -> str:
    generator = head.prior_generator
    return (f'{type(generator).__name__} with {generator.num_base_priors[0]} a position and the strides '
            f'{", ".join(str(stride[0]) for stride in generator.strides)}')
