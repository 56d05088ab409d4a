"""Sets of points in the plane."""
import torch
from torch import Tensor


def chamfer_distance(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance from each point to the nearest of another set.

    Args:
        points (Tensor): ``(B, N, 2)``.
        others (Tensor): ``(B, M, 2)``.

    Returns:
        tuple[Tensor, Tensor]: Squared distances, and which point is the nearest (int32); both ``(B, N)``.

    Examples:
        >>> chamfer_distance(torch.tensor([[[0., 0.]]]), torch.tensor([[[3., 0.], [0., 2.]]]))
        (tensor([[4.]]), tensor([[1]], dtype=torch.int32))
    """
    distance = (points[:, :, None] - others[:, None]).square().sum(-1)
    nearest, index = distance.min(2)
    return nearest, index.int()


def points_in_polygons(points: Tensor, polygons: Tensor) -> Tensor:
    """Whether points lie inside of quadrilaterals: a ray to the right crosses the border an odd number of times.

    Args:
        points (Tensor): ``(N, 2)``.
        polygons (Tensor): ``(M, 8)``: x1, y1, ..., x4, y4.

    Returns:
        Tensor: ``(N, M)``, bool.

    Examples:
        >>> points_in_polygons(torch.tensor([[1., 1.], [3., 1.]]), torch.tensor([[0., 0., 2., 0., 2., 2., 0., 2.]]))
        tensor([[ True],
                [False]])
    """
    x, y = points[:, 0, None, None], points[:, 1, None, None]
    start = polygons.view(-1, 4, 2)
    end = start.roll(1, 1)
    crosses = (start[..., 1] < y) != (end[..., 1] < y)
    rise = torch.where(crosses, end[..., 1] - start[..., 1], 1)
    at = start[..., 0] + (y - start[..., 1]) * (end[..., 0] - start[..., 0]) / rise
    return (crosses & (at > x)).sum(-1) % 2 == 1
