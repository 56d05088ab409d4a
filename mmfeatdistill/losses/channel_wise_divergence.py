"""Kullback-Leibler divergence of the spatial distribution of each channel (CWD)."""
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair
from mmfeatdistill.losses.kl_divergence import kl_divergence
from mmfeatdistill.registry import MODELS


def channel_wise_divergence(student: Tensor, teacher: Tensor, *, tau: float) -> Tensor:
    r"""Divergence of where a channel is active: a softmax over the positions of every channel.

    .. math:: L = \frac{\tau^2}{N C} \sum_{n,c} \sum_{i} p^t_{nci} \log \frac{p^t_{nci}}{p^s_{nci}},
        \qquad p_{nc} = \mathrm{softmax}_i(x_{nci} / \tau)

    Channel-wise knowledge distillation (arXiv 2011.13256). The authors' code divides by the
    batch size and by the number of channels, as here.

    Args:
        student (Tensor): Map of features or logits, shape (N, C, H, ...).
        teacher (Tensor): Map of the same shape; receives no gradient.
        tau (float): Temperature, above 0.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ or have no spatial dimension, or ``tau`` is not positive.

    Examples:
        >>> teacher = torch.tensor([[[3.0, 1.0]]]).log()
        >>> channel_wise_divergence(torch.zeros(1, 1, 2), teacher, tau=1.0)
        tensor(0.1308)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, ...)')
    # Every channel of every sample is one distribution, its positions are the classes.
    student, teacher = (x.flatten(2).flatten(0, 1) for x in (student, teacher))
    return kl_divergence(student, teacher, tau=tau)


@MODELS.register_module(name=['ChannelWiseDivergence', 'CWDLoss'])
class ChannelWiseDivergence(nn.Module):
    """:func:`channel_wise_divergence` times ``loss_weight``.

    Args:
        tau (float): Temperature. Defaults to 1, the default of the authors' code.
        loss_weight (float): Factor of the loss. Defaults to 1.
    """

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * channel_wise_divergence(student, teacher, tau=self.tau)
