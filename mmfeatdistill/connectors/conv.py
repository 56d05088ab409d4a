"""Linear connectors: a 1x1 convolution, with or without batch normalization."""
import math

from mmengine.model import constant_init, normal_init
from torch import nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Conv1x1(nn.Conv2d):
    """A 1x1 convolution with bias from the student's to the teacher's width (FitNets, MGD and others).

    It has PyTorch's default initialization.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> Conv1x1(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__(student_shape.channels, teacher_shape.channels, kernel_size=1)


def aligned(student_shape: FeatureShape, teacher_shape: FeatureShape) -> nn.Module:
    """What brings a student's feature to the teacher's width: nothing where the two are equal, else a :class:`Conv1x1`.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Returns:
        nn.Module: From the student's width to the teacher's.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> aligned(FeatureShape(8, 4, 4), FeatureShape(8, 2, 2))
        Identity()
    """
    same = student_shape.channels == teacher_shape.channels
    return nn.Identity() if same else Conv1x1(student_shape, teacher_shape)


@MODELS.register_module()
class ConvBN(nn.Sequential):
    """A 1x1 convolution without bias and batch normalization: the student transform of OFD.

    The convolution starts from N(0, 2 / C_teacher), the normalization from weight 1 and bias 0, as in
    the authors' code (arXiv 1904.01866, section 3.2).

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> ConvBN(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    # Layers have numbers and no names, which paramwise_cfg of a student might mean.
    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__(nn.Conv2d(student_shape.channels, teacher_shape.channels, kernel_size=1, bias=False),
                         nn.BatchNorm2d(teacher_shape.channels))
        self.init_weights()

    def init_weights(self) -> None:
        """Initializes as stated above."""
        conv, norm = self
        normal_init(conv, std=math.sqrt(2 / conv.out_channels))
        constant_init(norm, 1)
