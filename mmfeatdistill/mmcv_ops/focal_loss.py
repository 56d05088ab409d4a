"""Focal losses of one label for each row, and their gradients."""
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatdistill.mmcv_ops.differentiation import at_least_single


def sigmoid_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """The focal loss of each class against all others.

    Args:
        logits (Tensor): ``(N, C)``.
        target (Tensor): Class of each row, ``(N,)``, int64; one that is not among the C means background.
        weight (Tensor): Weight of the rows of each class, ``(C,)``, or empty; background has a weight of 1.
        gamma (float): Exponent that turns easy entries down.
        alpha (float): Factor of the right class; all others have ``1 - alpha``.

    Returns:
        Tensor: ``(N, C)``, differentiable in the logits.

    Examples:
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), torch.zeros(0), 2., 0.25)
        tensor([[0.0433, 0.1300]])
    """
    logits = at_least_single(logits)
    right = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    # Of the class or of all others, whichever is right: log p, from which p comes without a loss of digits.
    log_p = F.logsigmoid(torch.where(right, logits, -logits))
    loss = -torch.where(right, alpha, 1 - alpha) * (-torch.expm1(log_p)).pow(gamma) * log_p
    return loss * _weights(target, weight.to(loss.dtype))[:, None] if weight.numel() else loss


def softmax_focal_loss(probabilities: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """The focal loss of the right class.

    Args:
        probabilities (Tensor): After the softmax, ``(N, C)``.
        target (Tensor): Class of each row, ``(N,)``, int64; the loss of one that is negative is 0.
        weight (Tensor): Weight of the rows of each class, ``(C,)``, or empty.
        gamma (float): Exponent that turns easy rows down.
        alpha (float): Factor.

    Returns:
        Tensor: ``(N,)``, differentiable in the probabilities.

    Examples:
        >>> softmax_focal_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), torch.zeros(0), 2., 1.)
        tensor([0.1733])
    """
    probabilities = at_least_single(probabilities)
    p = probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p).pow(gamma) * p.clamp(min=torch.finfo(p.dtype).tiny).log()
    loss = torch.where(target < 0, 0, loss)
    return loss * _weights(target, weight.to(loss.dtype)) if weight.numel() else loss


def softmax_focal_loss_gradient(probabilities: Tensor, target: Tensor, weight: Tensor, gamma: float,
                                alpha: float) -> Tensor:
    """The gradient of the logits whose softmax `softmax_focal_loss` was given.

    Args:
        probabilities (Tensor): As for `softmax_focal_loss`, like all that follow.
        target (Tensor): The same.
        weight (Tensor): The same.
        gamma (float): The same.
        alpha (float): The same.

    Returns:
        Tensor: ``(N, C)``.

    Examples:
        >>> softmax_focal_loss_gradient(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), torch.zeros(0), 0., 1.)
        tensor([[-0.5000,  0.5000]])
    """
    probabilities = at_least_single(probabilities)
    label = target.clamp(min=0)[:, None]
    p = probabilities.gather(1, label)
    by_log_p = alpha * (gamma * (1 - p).pow(gamma - 1) * p * p.clamp(min=torch.finfo(p.dtype).tiny).log()
                        - (1 - p).pow(gamma))
    # At p = 1 the logarithm is 0 and, for gamma below 1, the power infinite; the limit of their product is 0.
    by_log_p = torch.where((target < 0)[:, None], 0, by_log_p.nan_to_num(0.))
    gradient = by_log_p * (torch.zeros_like(probabilities).scatter_(1, label, 1) - probabilities)
    return gradient * _weights(target, weight.to(p.dtype))[:, None] if weight.numel() else gradient


def _weights(target: Tensor, weight: Tensor) -> Tensor:
    """The weight of each row; 1 where the target is no class."""
    is_class = (target >= 0) & (target < len(weight))
    return torch.where(is_class, weight[target.clamp(0, len(weight) - 1)], 1)
