"""Divergence on the labeled class and among the others, weighted apart (DKD)."""
import torch
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair, require_classes
from mmfeatdistill.losses.kl_divergence import divergence_of_logs, kl_divergence


def decoupled(student: Tensor, teacher: Tensor, *, labels: Tensor, alpha: float, beta: float,
              tau: float) -> Tensor:
    r"""Kullback-Leibler divergence split into "the label or not" and "which of the others".

    .. math:: L = \tau^2 \left[ \alpha \, \mathrm{KL}(b^t \Vert b^s)
        + \beta \, \mathrm{KL}(q^t \Vert q^s) \right]

    averaged over the batch, where :math:`b = (p_y, 1 - p_y)` holds the label y against all the rest
    and q is the softmax over the rest; both with :math:`z / \tau`. Decoupled knowledge distillation
    (arXiv 2203.08679). Plain divergence is the case :math:`\alpha = 1, \beta = 1 - p^t_y`. All
    of it is computed from log-probabilities; the authors' code takes the logarithm of probabilities
    and hides the label by subtracting 1000 from its logit, which is the same where both are exact.

    Args:
        student (Tensor): Logits, shape (N, K) with K at least 2.
        teacher (Tensor): Logits of the same shape; receives no gradient.
        labels (Tensor): Class indices, int64 of shape (N), each from 0 to K - 1 (not checked: that
            would wait for the device).
        alpha (float): Weight of the labeled class; 1 in the authors' code.
        beta (float): Weight of the other classes; 0.5 on ImageNet, 8 unless told otherwise on
            CIFAR-100 in the authors' code.
        tau (float): Temperature, above 0; 1 on ImageNet, 4 on CIFAR-100 in the
            authors' code.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: The logits are no floating-point tensors, or the labels no int64 tensor.
        ValueError: The shapes differ or do not fit the labels, K is below 2, or ``tau`` is not
            positive.

    Examples:
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4.0, 3.0, 1.0]]).log()
        >>> decoupled(student, teacher, labels=torch.tensor([0]), alpha=1.0, beta=0.0, tau=1.0)
        tensor(0.0589)
        >>> decoupled(student, teacher, labels=torch.tensor([0]), alpha=0.0, beta=1.0, tau=1.0)
        tensor(0.1308)
    """
    student, teacher = matching_pair(student, teacher, '(N, K)')
    _check(student, labels, tau)
    label_student, others_student = _split(student, labels[:, None], tau)
    label_teacher, others_teacher = _split(teacher, labels[:, None], tau)
    others = divergence_of_logs(others_student, others_teacher) / max(len(labels), 1)
    return tau**2 * (alpha * kl_divergence(label_student, label_teacher, tau=1) + beta * others)


def _split(logits: Tensor, labels: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Logits of (label, all others together), (N, 2), and log-probabilities among the others, with 0 at the label."""
    label = logits.gather(1, labels) / tau
    others = (logits / tau).scatter_(1, labels, -torch.inf)
    together = others.logsumexp(1, keepdim=True)
    return torch.cat((label, together), dim=1), (others - together).scatter_(1, labels, 0)


def _check(logits: Tensor, labels: Tensor, tau: float) -> None:
    """Checks what :func:`matching_pair` does not know of."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f'labels: expected an int64 tensor of class indices, got {given}.')
    if labels.shape != logits.shape[:1]:
        raise ValueError('labels must have one value for each of the logits '
                         f'{tuple(logits.shape)}, got {tuple(labels.shape)}.')
    require_classes(logits)
    if tau <= 0:
        raise ValueError(f'tau must be positive, got {tau}.')
