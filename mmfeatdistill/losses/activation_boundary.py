"""Hinge loss on which neurons are active (AB)."""
import torch
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, squared_distance
from mmfeatdistill.registry import MODELS


def activation_boundary(student: Tensor, teacher: Tensor, *, margin: float) -> Tensor:
    r"""Squared hinge that puts a student's neuron on the side of zero where the teacher's is.

    .. math:: L = \frac{1}{N} \sum_{n,i} \max(0, \mu - \sigma_{ni} s_{ni})^2,
        \qquad \sigma_{ni} = +1 \text{ where } t_{ni} > 0 \text{, else } -1

    Activation boundaries (arXiv 1811.03233), the paper's alternative loss, for features before
    their ReLU. Only the teacher's sign counts, and identical features are not free of loss: within
    the margin they still are pushed outwards.

    Args:
        student (Tensor): Pre-activation feature, shape (N, ...).
        teacher (Tensor): Pre-activation feature of the same shape; receives no gradient.
        margin (float): The distance from zero that is asked of the student, not negative.

    Returns:
        Tensor: Scalar, float32 or wider: the sum over a sample, averaged over the batch. Zero for
            an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or have no batch dimension, or ``margin`` is negative.

    Examples:
        >>> student, teacher = torch.tensor([[-1.0, -2.0]]), torch.tensor([[5.0, -5.0]])
        >>> activation_boundary(student, teacher, margin=1.0)  # the first is 2 short of the margin
        tensor(4.)
    """
    student, teacher = matching_pair(student, teacher, '(N, ...)')
    if margin < 0:
        raise ValueError(f'margin must not be negative, got {margin}.')
    with torch.no_grad():  # the nearest value that the teacher's sign allows
        target = student.clamp(min=margin)
        torch.where(teacher > 0, target, student.clamp(max=-margin), out=target)
    return squared_distance(student, target) / max(student.shape[0], 1)


@MODELS.register_module(name=['ActivationBoundary', 'ABLoss'])
class ActivationBoundary(nn.Module):
    """:func:`activation_boundary` times ``loss_weight``.

    Args:
        margin (float): The distance from zero that is asked of the student. Defaults to 1, the
            value of the authors' code.
        loss_weight (float): Factor of the loss. Defaults to 1; the authors' CIFAR-10 runs use
            3/1000 for the last stage and half as much for each stage before.
    """

    def __init__(self, margin: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * activation_boundary(student, teacher, margin=self.margin)
