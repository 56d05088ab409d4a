"""The cross attention of CanKD, by which every position of the student looks at all positions of the teacher."""
import torch
import torch.nn.functional as F
from mmengine.model import constant_init
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmfeatdistill.connectors.conv import aligned
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


def cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    r"""Attention without a softmax: each position takes the mean of the values, weighted by its query and the keys.

    .. math:: y_i = \frac{1}{M} \sum_{j=1}^{M} (q_i^\top k_j)\, v_j
        = \Bigl(\frac{1}{M} \sum_j v_j k_j^\top\Bigr) q_i

    Without a softmax the sum over the M positions of keys and values can be taken first. So nothing of the size of
    positions times positions exists, which of one image of 800x1344 pixels at stride 4 would take 4.5 GB. The
    sum is taken in float32 at least.

    Args:
        query (Tensor): Shape (N, C, H, W).
        key (Tensor): Shape (N, C, K, L), of which M = K L.
        value (Tensor): Shape (N, D, K, L).

    Returns:
        Tensor: Shape (N, D, H, W).

    Examples:
        >>> query, key = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.tensor([2.0, 4.0]).view(1, 1, 2, 1)
        >>> cross_attention(query, key, value=torch.ones(1, 1, 2, 1)).flatten()
        tensor([3., 9.])
    """
    key, value = (tensor.flatten(2).to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (key, value))
    with torch.autocast(key.device.type, enabled=False):
        context = value @ key.transpose(1, 2) / key.shape[2]
    return (context.to(query.dtype) @ query.flatten(2)).unflatten(2, query.shape[2:])


@MODELS.register_module()
class CrossAttention(nn.Module):
    r"""Adds to each position of the student what it finds at all positions of the teacher.

    .. math:: g(s, t) = s + \mathrm{BN}\bigl(W y\bigr), \qquad
        y_i = \frac{1}{M} \sum_{j} \bigl(q(s)_i^\top k(t)_j\bigr)\, v(t)_j

    with 1x1 convolutions q, k, v to half the teacher's width and W back, and the M positions of k(t) and v(t) after
    2x2 max pooling (see :func:`cross_attention`). The normalization starts from weight and bias 0, so that
    g(s, t) = s at first. With the loss ``InstanceNormError`` this is CanKD (arXiv
    2511.21503); layers, order and initialization are those of the authors' code. A 1x1 convolution stands before it
    where the student has another width.

    The two maps may have other sizes, as every position looks at all. The teacher's side is computed again in the
    backward pass, as what the pooling starts from takes more memory than it takes time to compute.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.
        sub_sample (bool): Whether keys and values are pooled; of an odd side the last row or column is left out, a side
            of one position stays. Defaults to True, as in all of the authors' configs.
        batch_norm (bool): Whether there is a normalization; without one, W starts from 0. Defaults to True, as above.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> connector = CrossAttention(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))
        >>> connector(torch.zeros(2, 8, 4, 4), torch.zeros(2, 16, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    is_spatial = True
    takes_teacher = True

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape, sub_sample: bool = True,
                 batch_norm: bool = True) -> None:
        super().__init__()
        width = teacher_shape.channels
        inner = max(width // 2, 1)
        self.sub_sample = sub_sample
        self.align = aligned(student_shape, teacher_shape)
        self.query, self.key, self.value = (nn.Conv2d(width, inner, kernel_size=1) for _ in range(3))
        self.restore = nn.Sequential(nn.Conv2d(inner, width, kernel_size=1),
                                     *([nn.BatchNorm2d(width)] if batch_norm else []))
        constant_init(self.restore[-1], 0)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Lets each position of the student look at the teacher.

        Args:
            student (Tensor): Shape (N, C, H, W).
            teacher (Tensor): Shape (N, D, K, L); receives no gradient.

        Returns:
            Tensor: Shape (N, D, H, W).
        """
        student = self.align(student)
        key, value = checkpoint(self._keys_and_values, teacher.detach().to(student.dtype), use_reentrant=False,
                                preserve_rng_state=False)  # nothing is drawn
        return student + self.restore(cross_attention(self.query(student), key, value))

    def _keys_and_values(self, teacher: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key(teacher), self.value(teacher)
        if not self.sub_sample:
            return key, value
        size = [min(2, side) for side in teacher.shape[2:]]
        return F.max_pool2d(key, size), F.max_pool2d(value, size)
