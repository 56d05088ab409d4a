"""Squared error where a teacher's features look like its queries of objects (DETRDistill's target-aware term)."""
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair, require_floating, unit_length

_LEAST = 0.01
"""What a position counts at least before the map is divided by its greatest value."""


def query_attention(feature: Tensor, queries: Tensor, scores: Tensor) -> Tensor:
    r"""How much each position of a map looks like the queries, relative to the position that does most.

    .. math:: m_{lni} = \frac{\hat m_{lni}}{\max_j \hat m_{lnj}}, \qquad
        \hat m_{lni} = \max\Bigl(0.01, \sum_q a_{lnq} \cos(x_{ni}, z_{lnq})\Bigr)

    The sum over the queries is taken first, so that nothing of the size of queries times positions exists.

    Args:
        feature (Tensor): Shape (N, C, H, W).
        queries (Tensor): Of each of L decoder layers, shape (L, N, Q, C).
        scores (Tensor): What each query counts, shape (L, N, Q).

    Returns:
        Tensor: Shape (L, N, H, W), from above 0 to 1.

    Examples:
        >>> feature = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)  # of two positions
        >>> query_attention(feature, queries=torch.tensor([[[[5.0, 0.0]]]]), scores=torch.tensor([[[0.5]]]))
        tensor([[[[1.0000, 0.0200]]]])
    """
    wanted = (unit_length(queries, dim=3) * scores[..., None]).sum(2)
    found = (wanted[..., None, None] * unit_length(feature, dim=1)).sum(2).clamp(min=_LEAST)
    return found / found.amax((2, 3), keepdim=True)


def target_aware(student: Tensor, teacher: Tensor, *, queries: Tensor, scores: Tensor) -> Tensor:
    r"""Squared error weighted by where the teacher's feature looks like its queries, summed over the decoder layers.

    .. math:: L = \sum_l \frac{1}{N C H W} \sum_{n,c,i} \bigl(m_{lni} (t_{nci} - s_{nci})\bigr)^2

    with :func:`query_attention` of the teacher's feature. The target-aware term of DETRDistill (arXiv 2211.10156), as
    in the authors' code.

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        queries (Tensor): The teacher's, of each of L decoder layers, shape (L, N, Q, C); receive no gradient.
        scores (Tensor): What each of them counts, shape (L, N, Q); receive no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or those of queries and scores do not fit them.

    Examples:
        >>> student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
        >>> target_aware(student, teacher, queries=torch.tensor([[[[5.0, 0.0]]]]), scores=torch.tensor([[[1.0]]]))
        tensor(0.2501)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, W)')
    require_floating(queries=queries, scores=scores)
    n, channels = teacher.shape[:2]
    if queries.dim() != 4 or queries.shape[1] != n or queries.shape[3] != channels:
        raise ValueError(f'queries must have the shape (L, {n}, Q, {channels}) for features {tuple(teacher.shape)}, '
                         f'got {tuple(queries.shape)}.')
    if scores.shape != queries.shape[:3]:
        raise ValueError(f'scores must have the shape {tuple(queries.shape[:3])}, one for each query, got '
                         f'{tuple(scores.shape)}.')
    attention = query_attention(teacher, queries.detach().to(teacher.dtype), scores.detach().to(teacher.dtype))
    error = (teacher - student).square().sum(1)
    return (error * attention.square().sum(0)).sum() / max(student.numel(), 1)
