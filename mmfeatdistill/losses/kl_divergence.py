"""Kullback-Leibler divergence of softened class distributions."""
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, require_classes
from mmfeatdistill.losses.logit_standardization import standardized_pair
from mmfeatdistill.registry import MODELS


def kl_divergence(student: Tensor, teacher: Tensor, *, tau: float) -> Tensor:
    r"""Divergence of the student's class distribution from the teacher's, both softened.

    .. math:: L = \frac{\tau^2}{M} \sum_{m} \sum_{k} p^t_{mk} \log \frac{p^t_{mk}}{p^s_{mk}},
        \qquad p_{m} = \mathrm{softmax}(z_{m} / \tau)

    where m runs over the samples and, for dense predictions, over their positions: a segmentation
    map is averaged over its pixels as its cross-entropy is, so that a weight does not depend on
    the image size. The factor :math:`\tau^2` keeps the size of the gradient when the temperature
    changes (arXiv 1503.02531, section 2).

    Args:
        student (Tensor): Logits, shape (N, K) or (N, K, ...), classes in dimension 1.
        teacher (Tensor): Logits of the same shape; receives no gradient.
        tau (float): Temperature, above 0.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, have no class dimension or one class only, or ``tau`` is not positive.

    Examples:
        >>> kl_divergence(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log(), tau=1.0)
        tensor(0.1308)
    """
    student, teacher = matching_pair(student, teacher, '(N, K, ...)')
    require_classes(student)
    if tau <= 0:
        raise ValueError(f'tau must be positive, got {tau}.')
    distributions = student.numel() // max(student.shape[1], 1)
    divergence = divergence_of_logs(F.log_softmax(student / tau, dim=1), F.log_softmax(teacher / tau, dim=1))
    return divergence * (tau**2 / max(distributions, 1))


def divergence_of_logs(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Sum of :math:`p^t (\log p^t - \log p^s)` over all elements.

    Args:
        student (Tensor): Logarithms of probabilities.
        teacher (Tensor): The same of the teacher, without gradient; overwritten.

    Returns:
        Tensor: Scalar.
    """
    difference = teacher - student
    return difference.mul_(teacher.exp_()).sum()


@MODELS.register_module(name=['KLDivergence', 'KDLoss'])
class KLDivergence(nn.Module):
    """:func:`kl_divergence` times ``loss_weight``.

    Args:
        tau (float): Temperature. Defaults to 4, the value of most CIFAR-100 studies (FCFD,
            arXiv 2304.11832, among them); on ImageNet 1 is usual.
        loss_weight (float): Factor of the loss. Defaults to 1.
        standardize (bool): Whether :func:`mmfeatdistill.losses.standardize_logits` comes first on both sides. Defaults
            to False.

    Attributes:
        takes_softmax (bool): Whether it takes features for the classes of one distribution.
    """

    takes_softmax = True

    def __init__(self, tau: float = 4.0, loss_weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.standardize:
            student, teacher = standardized_pair(student, teacher)
        return self.loss_weight * kl_divergence(student, teacher, tau=self.tau)
