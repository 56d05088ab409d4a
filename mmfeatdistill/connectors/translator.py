"""The translator of Factor Transfer."""
from torch import nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Translator(nn.Sequential):
    r"""Three 3x3 convolutions, each followed by a leaky ReLU.

    .. math:: g(s) = \phi(W_3 * \phi(W_2 * \phi(W_1 * s + b_1) + b_2) + b_3), \qquad \phi(x) = \max(x, 0.1 x)

    The first keeps the student's width, the second changes it to the teacher's. The student transform of Factor
    Transfer (arXiv 1802.04977), which FEED (arXiv 1909.10754) takes over, one for each teacher. Order, slope and the
    activation at the end are those of the authors' code of Factor Transfer, and so is the initialization, PyTorch's
    default.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> Translator(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    is_spatial = True

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        student, teacher = student_shape.channels, teacher_shape.channels
        layers: list[nn.Module] = []
        for channels_in, channels_out in ((student, student), (student, teacher), (teacher, teacher)):
            layers += [nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
                       nn.LeakyReLU(0.1, inplace=True)]
        super().__init__(*layers)
