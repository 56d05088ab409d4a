"""L1 distance of features of unit length (Factor Transfer, FEED)."""
from torch import Tensor, nn

from mmfeatdistill.losses._pair import length, matching_pair
from mmfeatdistill.registry import MODELS


def factor_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean absolute difference of two features, each divided by its Euclidean norm per sample.

    .. math:: L = \frac{1}{N D} \sum_{n} \left\lVert \frac{s_n}{\lVert s_n \rVert_2}
        - \frac{t_n}{\lVert t_n \rVert_2} \right\rVert_1

    with D the size of a flattened sample. Factor Transfer (arXiv 1802.04977, p = 1) on the
    paraphrased and translated factors; FEED (arXiv 1909.10754) on the features of each teacher.
    The papers write a norm; the authors' code takes the mean over all elements, which is what
    their weight of 500 belongs to.

    Args:
        student (Tensor): Feature, shape (N, ...), flattened per sample.
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch. A sample that is zero everywhere
            keeps length 0.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or have no feature dimension.

    Examples:
        >>> factor_transfer(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
        tensor(0.6000)
    """
    student, teacher = matching_pair(student, teacher, '(N, D, ...)')
    student, teacher = student.flatten(1), teacher.flatten(1)
    # Both brought to unit length and subtracted in one tensor of their size.
    difference = (student / length(student, dim=1)).addcdiv_(teacher, length(teacher, dim=1), value=-1)
    return difference.abs().sum() / max(difference.numel(), 1)


@MODELS.register_module(name=['FactorTransfer', 'FTLoss'])
class FactorTransfer(nn.Module):
    """:func:`factor_transfer` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; Factor Transfer trains with 500.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * factor_transfer(student, teacher)
