"""Distance of spatial attention maps (AT)."""
import torch
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, squared_distance, unit_length
from mmfeatdistill.registry import MODELS


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of attention maps of unit length.

    .. math:: L = \frac{1}{N I} \sum_{n} \left\lVert \frac{a^s_n}{\lVert a^s_n \rVert_2}
        - \frac{a^t_n}{\lVert a^t_n \rVert_2} \right\rVert_2^2, \qquad a_{ni} = \sum_c x_{nci}^2

    over the I positions. Attention transfer (arXiv 1612.03928, eq. 2), activation based. The paper
    writes the norm of the difference; the authors' code takes the mean of its squares, as here.

    An attention map has no channels. So, unlike most losses, this one takes features of different widths, and needs
    no connector.

    Args:
        student (Tensor): Feature, shape (N, C, H, ...).
        teacher (Tensor): Feature of the same shape, or of another width; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ in more than the width, or have no spatial dimension.

    Examples:
        >>> student, teacher = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 3.0], [0.0, 4.0]]])
        >>> attention_transfer(student, teacher)
        tensor(1.)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, ...)', any_width=True)
    attention = _attention(student)
    return squared_distance(attention, _attention(teacher)) / max(attention.numel(), 1)


def _attention(feature: Tensor) -> Tensor:
    """Energy of each position, as one vector of unit length per sample; (N, positions)."""
    energy = torch.linalg.vector_norm(feature, dim=1).square()
    return unit_length(energy.flatten(1), dim=1)


@MODELS.register_module(name=['AttentionTransfer', 'ATLoss'])
class AttentionTransfer(nn.Module):
    """:func:`attention_transfer` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; in this normalization
            the paper's weight is 1000 per stage, halved in its eq. 2.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * attention_transfer(student, teacher)
