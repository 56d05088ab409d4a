"""Regions of interest: what they pool from feature maps, upright, rotated and deformed."""
from collections.abc import Iterator

import torch
from torch import Tensor

from mmfeatdistill.mmcv_ops.differentiation import at_least_single
from mmfeatdistill.mmcv_ops.sampling import corners, pool
from mmfeatdistill.mmcv_ops.torchvision_operators import torchvision_operator

# In half precision too.
FAR = -1e4


def roi_align(features: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int,
              aligned: bool) -> Tensor:
    """The mean of sampled points in each bin of each region, by torchvision.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)``: index in the batch, x1, y1, x2, y2; one that is not finite pools zeros.
        size (tuple[int, int]): Bins, vertically and horizontally.
        spatial_scale (float): From the coordinates of regions to those of the features.
        sampling_ratio (int): Points in a bin along each axis; 0 for as many as the bin has pixels.
        aligned (bool): Whether the center of the first pixel is at 0.5.

    Returns:
        Tensor: ``(N, C, *size)``.

    Raises:
        ImportError: torchvision cannot be loaded.

    Examples:
        >>> roi_align(torch.ones(1, 2, 4, 4), torch.tensor([[0., 0., 0., 2., 2.]]), (1, 1), 1., 2, True).flatten()
        tensor([1., 1.])
    """
    features = at_least_single(features)
    rois = _finite(rois).to(features.dtype)
    return torchvision_operator('roi_align')(features, rois, spatial_scale, *size, sampling_ratio, aligned)


def roi_align_gradient(grad: Tensor, rois: Tensor, shape: tuple[int, ...], spatial_scale: float, sampling_ratio: int,
                       aligned: bool) -> Tensor:
    """The gradient of the features of `roi_align`, by torchvision.

    Args:
        grad (Tensor): Of what was pooled, ``(N, C, h, w)``.
        rois (Tensor): ``(N, 5)``, as for `roi_align`.
        shape (tuple[int, ...]): Of the features, ``(B, C, H, W)``.
        spatial_scale (float): As for `roi_align`.
        sampling_ratio (int): As for `roi_align`.
        aligned (bool): As for `roi_align`.

    Returns:
        Tensor: Of the shape of the features.

    Raises:
        ImportError: torchvision cannot be loaded.

    Examples:
        >>> rois = torch.tensor([[0., 0., 0., 2., 2.]])
        >>> roi_align_gradient(torch.ones(1, 1, 1, 1), rois, (1, 1, 2, 2), 1., 1, True)
        tensor([[[[0.2500, 0.2500],
                  [0.2500, 0.2500]]]])
    """
    grad = at_least_single(grad).contiguous()
    rois = _finite(rois).to(grad.dtype)
    return torchvision_operator('_roi_align_backward')(
        grad, rois, spatial_scale, *grad.shape[2:], *shape, sampling_ratio, aligned)


def _finite(rois: Tensor) -> Tensor:
    """The regions, those that are not finite as an empty one outside: torchvision would read out of bounds there."""
    return torch.where(rois.isfinite().all(1, keepdim=True), rois, rois.new_tensor([0, *[FAR] * 4, 0])[:rois.shape[1]])


def roi_align_max(features: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int,
                  aligned: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of the sampled points in each bin of each region, and where it is.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)``, as for `roi_align`.
        size (tuple[int, int]): Bins, vertically and horizontally.
        spatial_scale (float): As for `roi_align`.
        sampling_ratio (int): As for `roi_align`.
        aligned (bool): As for `roi_align`.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Values, vertical and horizontal positions in the map, each ``(N, C, *size)``.
        The positions in a bin without points, as in a region without a size, lie outside of every map.

    Examples:
        >>> features = torch.arange(16.).view(1, 1, 4, 4)
        >>> values, y, x = roi_align_max(features, torch.tensor([[0., 0., 0., 3., 3.]]), (1, 1), 1., 3, False)
        >>> values.item(), y.item(), x.item()
        (12.5, 2.5, 2.5)
    """
    features = at_least_single(features)
    rois = _finite(rois).to(features.dtype)
    start, extent = _start_and_extent(rois, spatial_scale, aligned)
    values = features.new_zeros(len(rois), features.shape[1], *size)
    y_of, x_of = torch.full_like(values, -2), torch.full_like(values, -2)
    for chosen, grid in _grids(extent, size, sampling_ratio):
        y, x = _points(start[chosen], extent[chosen], size, grid)
        y, x = torch.broadcast_tensors(y, x)
        sampled = pool(features, rois[chosen, 0].long(), y[..., None], x[..., None]).movedim(-1, 1)
        values[chosen], best = sampled.max(-1)
        y_of[chosen], x_of[chosen] = (position[:, None].expand_as(sampled).gather(-1, best[..., None])[..., 0]
                                      for position in (y, x))
    return values, y_of, x_of


def _start_and_extent(rois: Tensor, spatial_scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """The upper left corner and the size of upright regions in the map, each ``(N, 2)`` as (x, y)."""
    start, end = (rois[:, 1:3] * spatial_scale, rois[:, 3:5] * spatial_scale)
    if aligned:
        return start - 0.5, end - start
    return start, (end - start).clamp(min=1)


def _grids(extent: Tensor, size: tuple[int, int], sampling_ratio: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Which regions have which numbers of points in a bin; those without points are left out."""
    if sampling_ratio > 0:
        counts = torch.full_like(extent, sampling_ratio, dtype=torch.long)
    else:
        counts = torch.ceil(extent / extent.new_tensor(size[::-1])).long()
    for columns, rows in counts.unique(dim=0).tolist():
        if rows > 0 and columns > 0:
            yield (counts == counts.new_tensor([columns, rows])).all(1).nonzero()[:, 0], (rows, columns)


def _points(start: Tensor, extent: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Positions that are sampled: vertical ``(N, h, 1, P)`` and horizontal ``(N, 1, w, P)``."""
    (rows, columns), device = grid, start.device
    y = (torch.arange(rows, device=device) + 0.5).repeat_interleave(columns) / rows
    x = (torch.arange(columns, device=device) + 0.5).repeat(rows) / columns
    y = torch.arange(size[0], device=device)[:, None] + y
    x = torch.arange(size[1], device=device)[:, None] + x
    bins = extent / extent.new_tensor(size[::-1])
    return ((start[:, 1, None, None] + bins[:, 1, None, None] * y)[:, :, None],
            (start[:, 0, None, None] + bins[:, 0, None, None] * x)[:, None])


def roi_align_rotated(features: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int,
                      aligned: bool, clockwise: bool) -> Tensor:
    """The mean of sampled points in each bin of each rotated region.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        rois (Tensor): ``(N, 6)``: index in the batch, center x, center y, width, height, angle in radians.
        size (tuple[int, int]): Bins, vertically and horizontally.
        spatial_scale (float): As for `roi_align`.
        sampling_ratio (int): As for `roi_align`.
        aligned (bool): As for `roi_align`.
        clockwise (bool): Whether angles count clockwise.

    Returns:
        Tensor: ``(N, C, *size)``, differentiable in the features.

    Examples:
        >>> features = torch.arange(16.).view(1, 1, 4, 4)
        >>> roi_align_rotated(features, torch.tensor([[0., 2., 2., 4., 2., 0.]]), (1, 2), 1., 2, True, True)
        tensor([[[[6.5000, 8.5000]]]])
    """
    features = at_least_single(features)
    rois = _finite(rois).to(features.dtype)
    center, extent = rois[:, 1:3] * spatial_scale, rois[:, 3:5] * spatial_scale
    if aligned:
        center = center - 0.5
    else:
        extent = extent.clamp(min=1)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    cos, sin = (part.view(-1, 1, 1, 1) for part in (angle.cos(), angle.sin()))
    pooled = features.new_zeros(len(rois), *size, features.shape[1])
    for chosen, grid in _grids(extent, size, sampling_ratio):
        y, x = _points(-extent[chosen] / 2, extent[chosen], size, grid)
        middle = center[chosen, :, None, None, None]
        part = pool(features, rois[chosen, 0].long(), y * cos[chosen] - x * sin[chosen] + middle[:, 1],
                    y * sin[chosen] + x * cos[chosen] + middle[:, 0])
        pooled = pooled.index_copy(0, chosen, part)
    return pooled.movedim(-1, 1)


def deform_roi_pool(features: Tensor, rois: Tensor, offset: Tensor, size: tuple[int, int], spatial_scale: float,
                    sampling_ratio: int, gamma: float) -> Tensor:
    """The mean of sampled points in each bin of each region, where each bin is moved.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)``, as for `roi_align`.
        offset (Tensor): ``(N, 2, *size)``: how far bins move to the right and down, in sizes of the region; empty for
            none.
        size (tuple[int, int]): Bins, vertically and horizontally.
        spatial_scale (float): As for `roi_align`.
        sampling_ratio (int): As for `roi_align`.
        gamma (float): Factor of the offsets.

    Returns:
        Tensor: ``(N, C, *size)``, differentiable in features and offset.

    Examples:
        >>> features = torch.arange(16.).view(1, 1, 4, 4)
        >>> right = torch.tensor([1., 0.]).view(1, 2, 1, 1)
        >>> deform_roi_pool(features, torch.tensor([[0., 1., 1., 3., 3.]]), right, (1, 1), 1., 2, 0.25)
        tensor([[[[8.]]]])
    """
    features = at_least_single(features)
    rois, offset = _finite(rois).to(features.dtype), offset.to(features.dtype)
    start, extent = _start_and_extent(rois, spatial_scale, aligned=True)
    pooled = features.new_zeros(len(rois), *size, features.shape[1])
    for chosen, grid in _grids(extent, size, sampling_ratio):
        y, x = torch.broadcast_tensors(*_points(start[chosen], extent[chosen], size, grid))
        if offset.numel():
            move = gamma * offset[chosen] * extent[chosen][:, :, None, None]
            y, x = y + move[:, 1, ..., None], x + move[:, 0, ..., None]
        pooled = pooled.index_copy(0, chosen, pool(features, rois[chosen, 0].long(), y, x))
    return pooled.movedim(-1, 1)


def roi_pool(features: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float) -> tuple[Tensor, Tensor]:
    """The largest pixel in each bin of each region.

    Bins cover every pixel that they touch, with the last pixel of a region inside of it; torchvision's ``roi_pool``
    rounds the corners of regions instead, and so pools other pixels.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)``, as for `roi_align`.
        size (tuple[int, int]): Bins, vertically and horizontally.
        spatial_scale (float): As for `roi_align`.

    Returns:
        tuple[Tensor, Tensor]: Values, and positions in the flattened map (int32); both ``(N, C, *size)``. An empty bin
        has a value of 0 and a position of -1.

    Examples:
        >>> features = torch.arange(4.).view(1, 1, 2, 2)
        >>> roi_pool(features, torch.tensor([[0., 0., 0., 1., 1.]]), (1, 2), 1.)
        (tensor([[[[2., 3.]]]]), tensor([[[[2, 3]]]], dtype=torch.int32))
    """
    (channels, height, width), device = features.shape[1:], features.device
    rois = at_least_single(rois)
    start, end = rois[:, 1:3] * spatial_scale, (rois[:, 3:5] + 1) * spatial_scale
    (left, right), (top, bottom) = (
        _covered(start[:, axis], end[:, axis], bins, pixels)
        for axis, (bins, pixels) in enumerate([(size[1], width), (size[0], height)]))
    has_size = (end > start).all(1).view(-1, 1, 1)
    values = features.new_full((len(rois), channels, *size), -torch.inf)
    position = torch.full(values.shape, -1, device=device)
    flat = features.flatten(2)[rois[:, 0].long()]
    for down in range(int((bottom - top).max()) if len(rois) else 0):
        for across in range(int((right - left).max())):
            y, x = (top + down)[:, :, None], (left + across)[:, None]
            counts = ((y < bottom[:, :, None]) & (x < right[:, None]) & has_size)[:, None]
            index = (y.clamp(max=height - 1) * width + x.clamp(max=width - 1))[:, None].expand_as(values)
            candidate = flat.gather(2, index.flatten(2)).view_as(values)
            larger = counts & (candidate > values)
            values, position = torch.where(larger, candidate, values), torch.where(larger, index, position)
    return torch.where(position < 0, 0, values), position.int()


def _covered(start: Tensor, end: Tensor, bins: int, pixels: int) -> tuple[Tensor, Tensor]:
    """The first pixel of each bin, and the first after it, each ``(N, bins)``."""
    step, number = ((end - start) / bins)[:, None], torch.arange(bins, device=start.device)
    return (torch.floor(number * step + start[:, None]).clamp(0, pixels).long(),
            torch.ceil((number + 1) * step + start[:, None]).clamp(0, pixels).long())


def roi_pool_gradient(grad: Tensor, rois: Tensor, position: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of the features of `roi_pool`.

    Args:
        grad (Tensor): Of what was pooled, ``(N, C, h, w)``.
        rois (Tensor): ``(N, 5)``, as for `roi_align`.
        position (Tensor): What `roi_pool` found, ``(N, C, h, w)``.
        shape (tuple[int, ...]): Of the features, ``(B, C, H, W)``.

    Returns:
        Tensor: Of the shape of the features.

    Examples:
        >>> rois, position = torch.tensor([[0., 0., 0., 1., 1.]]), torch.tensor([[[[2, 3]]]])
        >>> roi_pool_gradient(torch.ones(1, 1, 1, 2), rois, position, (1, 1, 2, 2)).flatten()
        tensor([0., 0., 1., 1.])
    """
    batch_size, channels, height, width = shape
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    index = planes[:, :, None, None] * height * width + position.clamp(min=0).long()
    flat = grad.new_zeros(batch_size * channels * height * width)
    flat.index_add_(0, index.flatten(), torch.where(position < 0, 0, grad).flatten())
    return flat.view(shape)


def border_points(boxes: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    """Points along the top, left, bottom and right border of boxes, each border in the order that it is walked.

    Top and left are walked from the upper left corner, bottom and right from the lower right one.

    Args:
        boxes (Tensor): ``(B, K, 4)``: x1, y1, x2, y2 in the coordinates of the features.
        pool_size (int): Steps along a border, which has one point more.

    Returns:
        tuple[Tensor, Tensor]: Vertical and horizontal positions, ``(B, K, 4, pool_size + 1)``.

    Examples:
        >>> y, x = border_points(torch.tensor([[[0., 0., 2., 4.]]]), 1)
        >>> y[0, 0].tolist(), x[0, 0].tolist()
        ([[0.0, 0.0], [0.0, 4.0], [4.0, 4.0], [4.0, 0.0]], [[0.0, 2.0], [0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    """
    step = torch.arange(pool_size + 1, device=boxes.device, dtype=boxes.dtype) / pool_size
    x1, y1, x2, y2 = (part[..., None] for part in boxes.unbind(-1))
    right, down, still = (x2 - x1) * step, (y2 - y1) * step, 0 * step
    return (torch.stack([y1 + still, y1 + down, y2 + still, y2 - down], 2),
            torch.stack([x1 + right, x1 + still, x2 - right, x2 + still], 2))


def border_align(features: Tensor, boxes: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    """The largest of the points sampled along each border of each box.

    Args:
        features (Tensor): ``(B, 4 * C, H, W)``: C channels for each of the top, left, bottom and right border.
        boxes (Tensor): ``(B, K, 4)``, as for `border_points`.
        pool_size (int): As for `border_points`.

    Returns:
        tuple[Tensor, Tensor]: Values, and the number of the point that each is from (int32); both ``(B, C, K, 4)``.

    Examples:
        >>> features = torch.arange(4.).view(1, 1, 2, 2).expand(1, 4, 2, 2)
        >>> border_align(features, torch.tensor([[[0., 0., 1., 1.]]]), 1)
        (tensor([[[[1., 2., 3., 3.]]]]), tensor([[[[1, 1, 0, 0]]]], dtype=torch.int32))
    """
    features = at_least_single(features)
    batch, channels, height, width = features.shape
    y, x = border_points(boxes.to(features.dtype), pool_size)
    index, weight = corners(y, x, height, width)
    index, weight = (part.transpose(1, 2).flatten(2)[:, :, None] for part in (index, weight))
    planes = features.view(batch, 4, channels // 4, height * width)
    sampled = planes.gather(3, index.expand(-1, -1, channels // 4, -1)) * weight
    sampled = sampled.view(batch, 4, channels // 4, -1, pool_size + 1, 4).sum(-1)
    values, best = sampled.max(-1)
    return values.permute(0, 2, 3, 1), best.permute(0, 2, 3, 1).int()
