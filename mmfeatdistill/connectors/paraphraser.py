"""The paraphraser of Factor Transfer."""
from torch import Tensor, nn


class Paraphraser(nn.Module):
    r"""An autoencoder of a teacher's feature: what is between its halves is the factor that a student mimics.

    .. math:: f = E(t), \qquad \hat t = D(f)

    with three 3x3 convolutions E that change the width in the second, and three transposed ones D that undo it, each
    followed by a leaky ReLU of slope 0.1. Of Factor Transfer (arXiv 1802.04977, section 3.1); order, slope and
    initialization, PyTorch's default, are those of the authors' code. It is no connector, as it stands on the teacher's
    side (see :class:`mmfeatdistill.objectives.FT`).

    Args:
        channels (int): Width of the teacher's feature.
        factor_channels (int): Width of the factor.

    Examples:
        >>> factor, reconstruction = Paraphraser(8, 4)(torch.zeros(2, 8, 5, 5))
        >>> tuple(factor.shape), tuple(reconstruction.shape)
        ((2, 4, 5, 5), (2, 8, 5, 5))
    """

    def __init__(self, channels: int, factor_channels: int) -> None:
        super().__init__()
        widths = (channels, channels, factor_channels, factor_channels)
        self.encoder = _three(nn.Conv2d, widths)
        self.decoder = _three(nn.ConvTranspose2d, widths[::-1])

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes and decodes.

        Args:
            feature (Tensor): Shape (N, C, H, W).

        Returns:
            tuple[Tensor, Tensor]: The factor, shape (N, F, H, W), and the reconstruction, shape (N, C, H, W).
        """
        factor = self.encoder(feature)
        return factor, self.decoder(factor)


def _three(layer: type[nn.Module], widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels_in, channels_out in zip(widths, widths[1:]):
        layers += [layer(channels_in, channels_out, kernel_size=3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
