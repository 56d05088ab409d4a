"""Distances between the samples of a batch (RKD-D)."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair
from mmfeatdistill.registry import MODELS


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Smooth L1 distance of the pairwise distances in a batch, relative to their mean.

    .. math:: L = \frac{1}{N^2} \sum_{i,j} h\Big(\frac{\lVert s_i - s_j \rVert_2}{\mu^s},
        \frac{\lVert t_i - t_j \rVert_2}{\mu^t}\Big)

    with h the Huber loss and :math:`\mu` the mean of the distances above 0. Relational knowledge
    distillation (arXiv 1904.05068, section 3.2.1). The paper sums over the pairs; the authors'
    code takes the mean over all N x N entries, the zero diagonal among them, as here. The
    embeddings are compared as they come: where a method wants them of unit length, normalize them
    before.

    Relative distances have no width. So, unlike most losses, this one takes embeddings of different widths, and needs
    no connector.

    Args:
        student (Tensor): Embeddings, shape (N, D, ...), flattened per sample.
        teacher (Tensor): Embeddings of the same shape, or of another width D; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for a batch of one, and for an empty one.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ in more than the width, or have no feature dimension.

    Examples:
        >>> student = torch.tensor([[0.0], [1.0], [3.0]])
        >>> teacher = torch.tensor([[0.0], [2.0], [4.0]])
        >>> relational_distance(student, teacher)  # ratios 1/2, 3/2, 1 and 3/4, 3/2, 3/4
        tensor(0.0139)
    """
    student, teacher = matching_pair(student, teacher, '(N, D, ...)', any_width=True)
    distance = F.smooth_l1_loss(*map(_relative_distances, (student, teacher)), reduction='sum')
    return distance / max(student.shape[0]**2, 1)


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Distances within a batch over their mean, (N, N); zeros where all samples coincide."""
    embeddings = embeddings.flatten(1)
    # Not by matrix products, which lose the small distances to cancellation.
    distances = torch.cdist(embeddings, embeddings, compute_mode='donot_use_mm_for_euclid_dist')
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.masked_fill(mean == 0, 1)


@MODELS.register_module(name=['RelationalDistance', 'DistanceWiseRKD'])
class RelationalDistance(nn.Module):
    """:func:`relational_distance` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1, the value of the authors'
            metric-learning scripts; classification studies often use 25.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * relational_distance(student, teacher)
