"""Channel MLP: a perceptron over the channels of each position."""
from typing import Optional

from torch import nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class ChannelMLP(nn.Sequential):
    r"""Two 1x1 convolutions with a ReLU between them, the same for every position.

    .. math:: g(s) = W_2\, \mathrm{ReLU}(W_1 s + b_1) + b_2

    The student transform of Channel MLP (arXiv 2303.13212, section 3.2). It has PyTorch's default
    initialization, as the paper states none.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.
        hidden_channels (int, optional): Width between the two layers. Defaults to the teacher's, as in
            the paper.

    Raises:
        ValueError: ``hidden_channels`` is no positive number.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> ChannelMLP(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape,
                 hidden_channels: Optional[int] = None) -> None:
        hidden = teacher_shape.channels if hidden_channels is None else hidden_channels
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f'hidden_channels: expected a positive integer, got {hidden_channels!r}.')
        super().__init__(
            nn.Conv2d(student_shape.channels, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, teacher_shape.channels, kernel_size=1))
