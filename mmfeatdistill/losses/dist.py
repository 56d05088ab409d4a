"""Correlation of predictions across classes and across samples (DIST)."""
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, mean_and_variation, require_classes
from mmfeatdistill.losses.logit_standardization import standardized_pair
from mmfeatdistill.registry import MODELS


def dist(student: Tensor, teacher: Tensor, *, beta: float = 1.0, gamma: float = 1.0,
         tau: float = 1.0) -> Tensor:
    r"""One minus the Pearson correlation of the predictions, over the classes and over the samples.

    .. math:: L = \tau^2 \left[ \beta \Big(1 - \frac{1}{N} \sum_n r(p^s_{n:}, p^t_{n:})\Big)
        + \gamma \Big(1 - \frac{1}{K} \sum_k r(p^s_{:k}, p^t_{:k})\Big) \right],
        \qquad p_n = \mathrm{softmax}(z_n / \tau)

    DIST (arXiv 2205.10536): "inter-class" relations within a sample, "intra-class" relations of
    one class over the batch. For dense predictions every position is a sample, as in the authors'
    code. Where one side does not vary at all (a single sample has no second one to correlate with)
    the correlation counts as 0 and its term as 1, without gradient.

    Args:
        student (Tensor): Logits, shape (N, K) or (N, K, ...), classes in dimension 1.
        teacher (Tensor): Logits of the same shape; receives no gradient.
        beta (float): Weight of the inter-class term. Defaults to 1.
        gamma (float): Weight of the intra-class term. Defaults to 1.
        tau (float): Temperature, above 0. Defaults to 1.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ or have no class dimension, or ``tau`` is not positive.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> round(dist(-logits, logits).item(), 4)  # each of the two terms is 1 - (-1)
        4.0
    """
    student, teacher = matching_pair(student, teacher, '(N, K, ...)')
    require_classes(student)
    if tau <= 0:
        raise ValueError(f'tau must be positive, got {tau}.')
    if not student.numel():
        return student.sum()
    p_student, p_teacher = (F.softmax(logits / tau, dim=1) for logits in (student, teacher))
    inter = 1 - _correlation(p_student, p_teacher, [1]).mean()
    intra = 1 - _correlation(p_student, p_teacher, [dim for dim in range(student.dim()) if dim != 1]).mean()
    return tau**2 * (beta * inter + gamma * intra)


def _correlation(student: Tensor, teacher: Tensor, dims: list[int]) -> Tensor:
    """Pearson's correlation along ``dims``; 0 where one of the two is constant."""
    (mean, variation), (teacher_mean, teacher_variation) = (mean_and_variation(x, dims) for x in (student, teacher))
    covariation = (student - mean).mul_(teacher - teacher_mean).sum(dims, keepdim=True)
    return covariation / (variation.clamp(min=1e-16).sqrt() * teacher_variation.clamp(min=1e-16).sqrt())


@MODELS.register_module(name=['DIST', 'DISTLoss'])
class DIST(nn.Module):
    """:func:`dist` times ``loss_weight``.

    Args:
        beta (float): Weight of the inter-class term. Defaults to 1, as in the authors' code.
        gamma (float): Weight of the intra-class term. Defaults to 1, as in the authors' code.
        tau (float): Temperature. Defaults to 1, as in the authors' code.
        loss_weight (float): Factor of the loss. Defaults to 1.
        standardize (bool): Whether :func:`mmfeatdistill.losses.standardize_logits` comes first on both sides. Defaults
            to False.

    Attributes:
        takes_softmax (bool): Whether it takes features for the classes of one distribution.
    """

    takes_softmax = True

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0,
                 loss_weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.tau = tau
        self.loss_weight = loss_weight
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.standardize:
            student, teacher = standardized_pair(student, teacher)
        return self.loss_weight * dist(
            student, teacher, beta=self.beta, gamma=self.gamma, tau=self.tau)
