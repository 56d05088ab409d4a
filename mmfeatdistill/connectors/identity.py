"""No connector: for features of the same width."""
from torch import Tensor, nn

from mmfeatdistill.features import FeatureShape
from mmfeatdistill.registry import MODELS


@MODELS.register_module()
class Identity(nn.Module):
    """Hands the student feature on as it is.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Raises:
        ValueError: The widths differ.
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__()
        if student_shape.channels != teacher_shape.channels:
            raise ValueError(f'Identity needs equal widths, but the student feature has '
                             f'{student_shape.channels} channels and the teacher feature '
                             f"{teacher_shape.channels}; use connector=dict(type='Conv1x1').")

    def forward(self, feature: Tensor) -> Tensor:
        """Returns the feature, shape (N, C, H, W)."""
        return feature
