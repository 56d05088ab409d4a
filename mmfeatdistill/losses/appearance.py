"""Mean squared error of features and of their pooled form (FCFD)."""
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair, mean_squared_error


def appearance(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *,
               pool_last: bool = True) -> Tensor:
    r"""Sum of the mean squared errors of several stages, the last one also after pooling.

    .. math:: L = \sum_{l} \mathrm{mse}(s^l, t^l) + \mathrm{mse}(g(s^L), g(t^L)),
        \qquad g(x)_{nc} = \frac{1}{I} \sum_i \max(0, x_{nci})

    The appearance loss of FCFD (arXiv 2304.11832). That the last stage also counts after ReLU and
    global pooling is found in the authors' code only; it is what the classifier reads.

    Args:
        student_features (Sequence[Tensor]): One feature a stage, each (N, C, ...), before the
            ReLU, in the teacher's width.
        teacher_features (Sequence[Tensor]): Features of the same shapes; receive no gradient.
        pool_last (bool): Whether the pooled term of the last stage is added. Defaults to True.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no sequence, or holds anything but floating-point tensors.
        ValueError: The sequences are empty or differ in length, or a pair differs in shape.

    Examples:
        >>> appearance([torch.ones(2, 3, 4, 4)], [torch.zeros(2, 3, 4, 4)])
        tensor(2.)
        >>> appearance([torch.ones(2, 3, 4, 4)], [torch.zeros(2, 3, 4, 4)], pool_last=False)
        tensor(1.)
    """
    for features in (student_features, teacher_features):
        if not isinstance(features, Sequence):  # a bare tensor would be taken apart along its batch
            raise TypeError(f'expected two lists of features, got {type(features).__name__}.')
    if len(student_features) != len(teacher_features) or not student_features:
        raise ValueError('student and teacher must have the same number of features, at least one, '
                         f'got {len(student_features)} and {len(teacher_features)}.')
    pairs = [matching_pair(student, teacher, '(N, C, ...)')
             for student, teacher in zip(student_features, teacher_features, strict=True)]
    if pool_last:
        pairs.append((_pooled(pairs[-1][0]), _pooled(pairs[-1][1])))
    return sum((mean_squared_error(*pair) for pair in pairs[1:]), mean_squared_error(*pairs[0]))


def _pooled(feature: Tensor) -> Tensor:
    """Mean over the positions of the activated feature; (N, C)."""
    return F.relu(feature).flatten(2).mean(2) if feature.dim() > 2 else F.relu(feature)

