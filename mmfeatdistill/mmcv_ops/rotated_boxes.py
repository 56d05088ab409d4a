"""Overlaps of rotated boxes and other convex quadrilaterals, and their suppression."""
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmfeatdistill.mmcv_ops.nms import greedy

# Of pairs whose polygons are intersected at once: each has 24 points that might be corners.
PAIRS = 2**16
# Relative to the size of the shapes: what lies closer is one point, or on a line.
CLOSE = 1e-9


def box_corners(boxes: Tensor) -> Tensor:
    """The corners of rotated boxes.

    Args:
        boxes (Tensor): ``(..., 5)``: center x, center y, width, height, angle in radians.

    Returns:
        Tensor: ``(..., 4, 2)`` as (x, y), around the box.

    Examples:
        >>> box_corners(torch.tensor([1., 1., 2., 2., 0.])).tolist()
        [[2.0, 2.0], [0.0, 2.0], [0.0, 0.0], [2.0, 0.0]]
    """
    center, (width, height), angle = boxes[..., None, :2], boxes[..., 2:4].unbind(-1), boxes[..., 4]
    across = boxes.new_tensor([0.5, -0.5, -0.5, 0.5]) * width[..., None]
    along = boxes.new_tensor([0.5, 0.5, -0.5, -0.5]) * height[..., None]
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    return center + torch.stack([across * cos - along * sin, across * sin + along * cos], -1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def polygon_area(polygon: Tensor) -> Tensor:
    """The area of polygons, negative where the corners go the other way round.

    Args:
        polygon (Tensor): ``(..., K, 2)``, corners in order.

    Returns:
        Tensor: ``(...)``.

    Examples:
        >>> polygon_area(torch.tensor([[0., 0.], [2., 0.], [2., 1.], [0., 1.]]))
        tensor(2.)
    """
    polygon = polygon - polygon[..., :1, :]  # far from the origin, digits would be lost
    return _cross(polygon, polygon.roll(-1, -2)).sum(-1) / 2


def intersection_area(quads: Tensor, others: Tensor) -> Tensor:
    """The common area of pairs of convex quadrilaterals.

    Corners of the common polygon are crossings of edges, and corners of one that lie in the other; it is convex, so
    that their angles around its middle order them.

    Args:
        quads (Tensor): ``(N, 4, 2)``, corners in order, either way round.
        others (Tensor): ``(N, 4, 2)``.

    Returns:
        Tensor: ``(N,)``.

    Examples:
        >>> square = torch.tensor([[[0., 0.], [2., 0.], [2., 2.], [0., 2.]]])
        >>> intersection_area(square, square + 1)
        tensor([1.])
    """
    shift = (quads.mean(1, keepdim=True) + others.mean(1, keepdim=True)) / 2
    quads, others = (_counterclockwise(shape - shift) for shape in (quads, others))
    size = torch.maximum(quads.abs().amax((1, 2)), others.abs().amax((1, 2)))
    close = (CLOSE * size * size)[:, None, None]
    edges, other_edges = (shape.roll(-1, 1) - shape for shape in (quads, others))
    between = others[:, None] - quads[:, :, None]
    denominator = _cross(edges[:, :, None], other_edges[:, None])
    is_parallel = denominator.abs() <= close
    denominator = torch.where(is_parallel, 1, denominator)
    along = _cross(between, other_edges[:, None]) / denominator
    other_along = _cross(between, edges[:, :, None]) / denominator
    meets = ~is_parallel & _in_unit(along) & _in_unit(other_along)
    crossings = (quads[:, :, None] + along[..., None] * edges[:, :, None]).flatten(1, 2)
    points = torch.cat([crossings, quads, others], 1)
    valid = torch.cat([meets.flatten(1), _inside(quads, others, other_edges, close),
                       _inside(others, quads, edges, close)], 1)
    return _area_of_hull(torch.where(valid[..., None], points, 0), valid)


def _counterclockwise(quads: Tensor) -> Tensor:
    return torch.where((polygon_area(quads) < 0)[:, None, None], quads.flip(1), quads)


def _in_unit(part: Tensor) -> Tensor:
    return (part >= -CLOSE) & (part <= 1 + CLOSE)


def _inside(points: Tensor, quads: Tensor, edges: Tensor, close: Tensor) -> Tensor:
    """Whether points are left of, or on, all edges of counterclockwise quadrilaterals, ``(N, points)``."""
    return (_cross(edges[:, None], points[:, :, None] - quads[:, None]) >= -close).all(-1)


def _area_of_hull(points: Tensor, valid: Tensor) -> Tensor:
    """The area of the polygon whose corners are the valid of the points, which are in convex position."""
    count = valid.sum(1).clamp(min=1)
    middle = points.sum(1) / count[:, None]
    around = torch.where(valid[..., None], points - middle[:, None], 0)
    angle = torch.where(valid, torch.atan2(around[..., 1], around[..., 0]), torch.inf)
    order = angle.argsort(1)
    around = around.gather(1, order[..., None].expand_as(around))
    # What is not valid comes last and is moved onto the first corner, where it adds nothing.
    around = torch.where(valid.gather(1, order)[..., None], around, around[:, :1])
    return polygon_area(around)


def quad_overlaps(quads: Tensor, others: Tensor, of_first: bool = False) -> Tensor:
    """Intersection over union of pairs of convex quadrilaterals, computed in double precision.

    Args:
        quads (Tensor): ``(N, 4, 2)``, corners in order, either way round.
        others (Tensor): ``(N, 4, 2)``.
        of_first (bool): Whether to divide by the area of ``quads`` instead of the union.

    Returns:
        Tensor: ``(N,)``, float64; 0 for shapes without an area.

    Examples:
        >>> square = torch.tensor([[[0., 0.], [2., 0.], [2., 2.], [0., 2.]]])
        >>> quad_overlaps(square, square + 1)
        tensor([0.1429], dtype=torch.float64)
    """
    result = torch.zeros(len(quads), dtype=torch.float64, device=quads.device)
    # Most pairs are far apart, which the upright boxes around them show.
    near = ((quads.amax(1) >= others.amin(1)) & (quads.amin(1) <= others.amax(1))).all(1).nonzero()[:, 0]
    for chosen in near.split(PAIRS):
        first, second = quads[chosen].double(), others[chosen].double()
        area, other_area = polygon_area(first).abs(), polygon_area(second).abs()
        common = intersection_area(first, second)
        has_area = (area >= 1e-14) & (other_area >= 1e-14)
        result[chosen] = torch.where(has_area, common / (area if of_first else area + other_area - common), 0)
    return result


def pairwise(quads: Tensor, others: Tensor, aligned: bool, of_first: bool) -> Tensor:
    """`quad_overlaps` of all pairs, or of those of the same index.

    Args:
        quads (Tensor): ``(N, 4, 2)``.
        others (Tensor): ``(M, 4, 2)``.
        aligned (bool): Whether each meets the other of the same index only.
        of_first (bool): As for `quad_overlaps`.

    Returns:
        Tensor: ``(N, M)``, or ``(N,)`` if aligned; float64.

    Examples:
        >>> square = torch.tensor([[[0., 0.], [2., 0.], [2., 2.], [0., 2.]]])
        >>> pairwise(square, torch.cat([square, square + 1]), False, False)
        tensor([[1.0000, 0.1429]], dtype=torch.float64)
    """
    if aligned:
        return quad_overlaps(quads, others, of_first)
    rows = max(1, 16 * PAIRS // max(1, len(others)))
    parts = [quad_overlaps(part.repeat_interleave(len(others), 0), others.repeat(len(part), 1, 1), of_first)
             for part in quads.split(rows)]
    return torch.cat(parts).view(len(quads), len(others))


def nms_of_quads(shapes: Tensor, order: Tensor, labels: Tensor | None, iou_threshold: float,
                 corners: Callable[[Tensor], Tensor]) -> Tensor:
    """Greedy suppression of rotated boxes or quadrilaterals.

    Args:
        shapes (Tensor): ``(N, K)``, the best first.
        order (Tensor): Their indices, ``(N,)``.
        labels (Tensor | None): Class of each, ``(N,)``: only those of one class suppress each other.
        iou_threshold (float): A shape that overlaps a kept one as much, or more, is dropped.
        corners (Callable): Gives the corners ``(N, 4, 2)`` of shapes.

    Returns:
        Tensor: The kept indices, the best first.

    Examples:
        >>> boxes = torch.tensor([[1., 1., 2., 2., 0.], [1., 1., 2., 1., 0.], [9., 9., 2., 2., 1.]])
        >>> nms_of_quads(boxes, torch.tensor([7, 4, 5]), None, 0.4, box_corners)
        tensor([7, 5])
    """
    quads = corners(shapes.double())
    suppresses = pairwise(quads, quads, False, False) >= iou_threshold
    if labels is not None:
        suppresses &= labels[:, None] == labels
    return greedy(order, suppresses)


def sort_corners(points: Tensor, valid: Tensor, first_crossing: int = 8, places: int = 9) -> Tensor:
    """The order in which points go around the origin, closed, for the corners of intersections of two boxes.

    Args:
        points (Tensor): ``(B, N, K, 2)``, relative to their middle.
        valid (Tensor): Which of them are corners, ``(B, N, K)``, bool.
        first_crossing (int): From which point on they are crossings of edges, not corners of a box.
        places (int): Length of the result: the eight corners that two boxes can have in common, and the first again.

    Returns:
        Tensor: ``(B, N, places)``, int32: corners by angle, each once, the first again, and then crossings that are
        not valid. Only those where fewer than three are valid.

    Examples:
        >>> points = torch.tensor([[1., 1.], [-1., -1.], [1., -1.], [0., 0.]]).view(1, 1, 4, 2)
        >>> sort_corners(points, torch.tensor([[[True, True, True, False]]]), first_crossing=3, places=5)
        tensor([[[0, 1, 2, 0, 3]]], dtype=torch.int32)
    """
    angle = torch.atan2(points[..., 1], points[..., 0]).remainder(2 * math.pi)
    order = torch.where(valid, angle, torch.inf).argsort(-1)
    walked = points.gather(2, order[..., None].expand_as(points))
    before = walked.roll(1, 2)
    # The corner before the first is the last that is valid.
    last = (valid.sum(-1) - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, 2)
    before = torch.cat([walked.gather(2, last), before[:, :, 1:]], 2)
    size = points.abs().amax((2, 3))[..., None]
    is_new = ((walked - before).abs().amax(-1) > 1e-6 * size) & valid.gather(2, order)
    count = is_new.sum(-1, keepdim=True)
    order = order.gather(2, (~is_new).to(torch.uint8).argsort(dim=-1, stable=True))
    padding = valid[..., first_crossing:].to(torch.uint8).argmin(-1, keepdim=True) + first_crossing
    place = torch.arange(places, device=points.device)
    order = order[..., :places] if order.shape[-1] >= places else torch.cat(
        [order, padding.expand(-1, -1, places - order.shape[-1])], -1)
    closed = torch.where(place == count, order[..., :1], torch.where(place < count, order, padding))
    return torch.where(valid.sum(-1, keepdim=True) < 3, padding, closed).int()
