"""Logits of zero mean and unit deviation, so that only how a network ranks the classes is compared."""
import torch
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair, mean_and_variation, require_floating

_LEAST_DEVIATION = 1e-3
"""Below it, logits are divided by it: rounding errors of almost equal logits would be magnified up to 1e7 times."""


def standardize_logits(logits: Tensor) -> Tensor:
    r"""Brings the logits of each sample, or of each position, to mean 0 and standard deviation 1 over the classes.

    .. math:: z_k = \frac{x_k - \bar x}{\sigma + 10^{-7}}, \qquad
        \sigma^2 = \frac{1}{K - 1} \sum_k (x_k - \bar x)^2

    Logit standardization (arXiv 2403.01427) and its authors' code: the deviation of a sample takes the place of a
    temperature that student and teacher share. Where it is below 0.001, it counts as 0.001, which the authors do not
    have: the gradient of almost equal logits stays bounded.

    Args:
        logits (Tensor): Shape (N, K) or (N, K, ...), K at least 2, classes in dimension 1.

    Returns:
        Tensor: The same shape, float32 or wider.

    Raises:
        TypeError: ``logits`` is no floating-point tensor.
        ValueError: There are fewer than two classes.

    Examples:
        >>> standardize_logits(torch.tensor([[1.0, 3.0, 5.0], [10.0, 30.0, 50.0]]))
        tensor([[-1.,  0.,  1.],
                [-1.,  0.,  1.]])
    """
    require_floating(logits=logits)
    if logits.dim() < 2 or logits.shape[1] < 2:
        raise ValueError(f'logits of at least two classes are standardized, shape (N, K, ...), got '
                         f'{tuple(logits.shape)}.')
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    mean, variation = mean_and_variation(logits, [1])
    deviation = (variation / (logits.shape[1] - 1)).clamp(min=_LEAST_DEVIATION**2).sqrt()
    return (logits - mean) / (deviation + 1e-7)


def standardized_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`standardize_logits` of both sides.

    Args:
        student (Tensor): Logits, shape (N, K) or (N, K, ...).
        teacher (Tensor): Logits of the same shape; receives no gradient.

    Returns:
        tuple[Tensor, Tensor]: The two.

    Raises:
        TypeError: One of them is no floating-point tensor.
        ValueError: Their shapes differ, or there are fewer than two classes.
    """
    student, teacher = matching_pair(student, teacher, '(N, K, ...)')
    return standardize_logits(student), standardize_logits(teacher)
