"""Angles between the samples of a batch (RKD-A)."""
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import full_precision, matching_pair, unit_length
from mmfeatdistill.registry import MODELS


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Smooth L1 distance of the cosines of all angles that three samples of a batch form.

    .. math:: L = \frac{1}{N^3} \sum_{i,j,k}
        h\big(\cos \angle s_j s_i s_k, \cos \angle t_j t_i t_k\big)

    with h the Huber loss. Relational knowledge distillation (arXiv 1904.05068, section 3.2.2). The
    paper sums over the triplets; the authors' code takes the mean over all N x N x N entries,
    degenerate triplets (cosine 0 where two points coincide) among them, as here. Time and memory
    grow as N^2 (N + D). The embeddings are compared as they come: where a method wants them of
    unit length, normalize them before.

    Angles have no width. So, unlike most losses, this one takes embeddings of different widths, and needs no connector.

    Args:
        student (Tensor): Embeddings, shape (N, D, ...), flattened per sample.
        teacher (Tensor): Embeddings of the same shape, or of another width D; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for a batch of one or two equal vectors, and for an
            empty one.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ in more than the width, or have no feature dimension.

    Examples:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(relational_angle(3 * corner + 1, corner).item(), 4)  # similar triangles
        0.0
    """
    student, teacher = matching_pair(student, teacher, '(N, D, ...)', any_width=True)
    distance = F.smooth_l1_loss(_cosines(student), _cosines(teacher), reduction='sum')
    return distance / max(student.shape[0]**3, 1)


def _cosines(embeddings: Tensor) -> Tensor:
    """Cosine at vertex i between the directions to j and k; (N, N, N)."""
    embeddings = embeddings.flatten(1)
    directions = unit_length(embeddings[None] - embeddings[:, None], dim=2)
    with full_precision(directions):
        return directions @ directions.transpose(1, 2)


@MODELS.register_module(name=['RelationalAngle', 'AngleWiseRKD'])
class RelationalAngle(nn.Module):
    """:func:`relational_angle` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; the authors' metric-learning
            scripts use 2, classification studies often 50.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * relational_angle(student, teacher)
