"""Distance of features that channel and spatial attention have refined (AttnFD)."""
from torch import Tensor, nn

from mmfeatdistill.losses._pair import length, matching_pair, squared_distance
from mmfeatdistill.registry import MODELS


def refined(feature: Tensor) -> Tensor:
    r"""A map refined by attention without parameters: over its channels, then over its positions.

    .. math:: y_{nci} = x_{nci}\, \sigma\bigl(\mathrm{mean}_j x_{ncj} + \max_j x_{ncj}\bigr), \qquad
        z_{nci} = y_{nci}\, \sigma\bigl(\mathrm{mean}_d y_{ndi} + \max_d y_{ndi}\bigr)

    Args:
        feature (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: The same shape.

    Examples:
        >>> refined(torch.tensor([[[[0.0, 2.0]]]]))  # 2 * sigmoid(1 + 2), and that times sigmoid of twice itself
        tensor([[[[0.0000, 1.8639]]]])
    """
    feature = feature * (feature.mean((2, 3), keepdim=True) + feature.amax((2, 3), keepdim=True)).sigmoid()
    return feature * (feature.mean(1, keepdim=True) + feature.amax(1, keepdim=True)).sigmoid()


def normalized_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared distance of two features, each divided by its norm over the entire batch, averaged over the batch.

    .. math:: L = \frac{1}{N} \left\lVert \frac{s}{\lVert s \rVert} - \frac{t}{\lVert t \rVert} \right\rVert^2

    The norms are those of all N images together, as in the authors' code of AttnFD (arXiv 2403.05451): the loss
    gets smaller with a larger batch, and is no mean over images.

    Args:
        student (Tensor): Feature, shape (N, ...).
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ.

    Examples:
        >>> normalized_distance(torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.5]]))
        tensor(2.)
    """
    student, teacher = matching_pair(student, teacher, '(N, ...)')
    own, theirs = (feature / length(feature.flatten(), dim=0) for feature in (student, teacher))
    return squared_distance(own, theirs) / max(student.shape[0], 1)


def attention_guided(student: Tensor, teacher: Tensor) -> Tensor:
    r""":func:`normalized_distance` of the student's feature and the teacher's :func:`refined` one.

    The student's is refined by its connector, which learns how:
    :class:`mmfeatdistill.connectors.AttentionGate`. A teacher here has no attention that was trained.

    Args:
        student (Tensor): Feature behind its connector, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or are not those of maps.

    Examples:
        >>> teacher = torch.rand(2, 3, 4, 4)
        >>> attention_guided(refined(teacher), teacher)
        tensor(0.)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, W)')
    return normalized_distance(student, refined(teacher))


@MODELS.register_module(name=['AttentionGuided', 'AttnFD'])
class AttentionGuided(nn.Module):
    """:func:`attention_guided` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; the authors take 2.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * attention_guided(student, teacher)
