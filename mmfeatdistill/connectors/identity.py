"""No connector: for features of the same width, and for losses that compare features of any width."""
from torch import Tensor, nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Identity(nn.Module):
    """Hands the student feature on as it is.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__()

    def forward(self, feature: Tensor) -> Tensor:
        return feature
