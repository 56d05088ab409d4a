"""The global block of FGD: what all positions of a map have in common, added to each."""
import torch
from mmengine.model import constant_init, kaiming_init
from torch import Tensor, nn


class GlobalBlock(nn.Module):
    r"""Adds to every position what a perceptron makes of a weighted mean of all positions.

    .. math:: G(x)_i = x_i + W_2\, \mathrm{ReLU}\bigl(\mathrm{LN}(W_1 \bar x + b_1)\bigr) + b_2, \qquad
        \bar x = \sum_j \mathrm{softmax}_j(w^\top x_j + b)\, x_j

    with a layer normalization LN over the C / 2 channels between the two layers. Of FGD (arXiv 2111.11837), which takes
    it from GCNet; layers and initialization are those of the authors' code: the last layer starts from 0, so that
    G(x) = x at first, w from Kaiming's normal distribution (fan-in), and b from 0. The mean is taken in
    float32 at least. It is no connector, as one stands on each side (see :class:`mmfeatdistill.objectives.FGD`).

    Args:
        channels (int): Width of the feature.

    Examples:
        >>> GlobalBlock(8)(torch.ones(1, 8, 2, 2)).sum()
        tensor(32., grad_fn=<SumBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.score = nn.Conv2d(channels, 1, kernel_size=1)
        self.transform = nn.Sequential(nn.Linear(channels, inner), nn.LayerNorm(inner), nn.ReLU(inplace=True),
                                       nn.Linear(inner, channels))
        kaiming_init(self.score, mode='fan_in')
        constant_init(self.transform[-1], 0)

    def forward(self, feature: Tensor) -> Tensor:
        """Adds the context of all positions to each.

        Args:
            feature (Tensor): Shape (N, C, H, W).

        Returns:
            Tensor: The same shape.
        """
        feature = feature.to(self.score.weight.dtype)
        positions = feature.flatten(2)
        positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
        shares = self.score(feature).flatten(2).to(positions.dtype).softmax(2)
        with torch.autocast(feature.device.type, enabled=False):
            mean = (positions @ shares.transpose(1, 2)).squeeze(2)
        return feature + self.transform(mean.to(feature.dtype))[:, :, None, None]
