"""Convolutions at chosen places, with kernels of each place, and of rotated kernels."""
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatdistill.mmcv_ops.differentiation import at_least_single
from mmfeatdistill.mmcv_ops.sampling import pool


def masked_columns(features: Tensor, rows: Tensor, columns: Tensor, kernel: tuple[int, int],
                   padding: tuple[int, int]) -> Tensor:
    """What a convolution reads at chosen places.

    Args:
        features (Tensor): ``(1, C, H, W)``.
        rows (Tensor): ``(P,)``, int64.
        columns (Tensor): ``(P,)``, int64.
        kernel (tuple[int, int]): Height and width.
        padding (tuple[int, int]): The same.

    Returns:
        Tensor: ``(C * kh * kw, P)``.

    Examples:
        >>> features = torch.arange(4.).view(1, 1, 2, 2)
        >>> masked_columns(features, torch.tensor([0]), torch.tensor([1]), (1, 3), (0, 1)).flatten()
        tensor([0., 1., 0.])
    """
    padded = F.pad(features[0], (padding[1], padding[1], padding[0], padding[0]))
    down, across = (torch.arange(size, device=rows.device) for size in kernel)
    return padded[:, (rows + down[:, None])[:, None], (columns + across[:, None])[None]].flatten(0, 2)


def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """Enlarges a map; each new pixel has its own kernel over the old ones.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        masks (Tensor): The kernels, ``(B, groups * kernel_size^2, H * scale, W * scale)``.
        kernel_size (int): Odd.
        groups (int): Groups of channels that share a kernel.
        scale (int): How many times larger the new map is.

    Returns:
        Tensor: ``(B, C, H * scale, W * scale)``, differentiable in features and masks.

    Examples:
        >>> carafe(torch.tensor([[[[3.]]]]), torch.ones(1, 1, 2, 2), 1, 1, 2)
        tensor([[[[3., 3.],
                  [3., 3.]]]])
    """
    batch, channels, height, width = features.shape
    features = at_least_single(features)
    taps = F.unfold(features, kernel_size, padding=kernel_size // 2)
    taps = taps.view(batch, groups, channels // groups, kernel_size**2, height, width)
    masks = masks.to(features.dtype).view(batch, groups, kernel_size**2, height, scale, width, scale)
    return torch.einsum('bgckhw,bgkhiwj->bgchiwj', taps, masks).reshape(batch, channels, height * scale, width * scale)


def psa_mask(masks: Tensor, kernel: tuple[int, int], collect: bool) -> Tensor:
    """Lays the mask that each pixel has around itself out over the entire map.

    Args:
        masks (Tensor): ``(B, kh * kw, H, W)``.
        kernel (tuple[int, int]): Height and width of a mask.
        collect (bool): Whether a pixel's mask says what it collects, or what it distributes.

    Returns:
        Tensor: ``(B, H * W, H, W)``, differentiable in the masks.

    Examples:
        >>> psa_mask(torch.tensor([1., 2., 3.]).view(1, 3, 1, 1).expand(1, 3, 1, 2), (1, 3), False)[0, :, 0]
        tensor([[2., 3.],
                [1., 2.]])
    """
    (batch, _, height, width), device = masks.shape, masks.device
    offset = [torch.arange(size, device=device) - torch.arange(size, device=device)[:, None] + (taps - 1) // 2
              for size, taps in zip((height, width), kernel)]
    inside = [(place >= 0) & (place < taps) for place, taps in zip(offset, kernel)]
    # (own row, own column, row, column)
    index = offset[0][:, None, :, None] * kernel[1] + offset[1][None, :, None]
    exists = (inside[0][:, None, :, None] & inside[1][None, :, None]).reshape(height * width, -1)
    index = torch.where(exists, index.reshape(height * width, -1), 0)
    spread = masks.flatten(2).transpose(1, 2).gather(2, index.expand(batch, -1, -1))
    spread = torch.where(exists, spread, 0)
    return (spread.transpose(1, 2) if collect else spread).reshape(batch, -1, height, width)


def rotated_filters(weight: Tensor, indices: Tensor) -> Tensor:
    """Kernels with orientation channels, in all their rotations.

    Args:
        weight (Tensor): ``(O, I, orientations, kh, kw)``.
        indices (Tensor): Where each entry goes in each rotation, counted from 1: ``(orientations, kh, kw, R)``.

    Returns:
        Tensor: ``(O * R, I * orientations, kh, kw)``.

    Examples:
        >>> weight = torch.tensor([5., 6.]).view(1, 1, 2, 1, 1)
        >>> rotated_filters(weight, torch.tensor([[1, 2], [2, 1]]).view(2, 1, 1, 2)).flatten(1)
        tensor([[5., 6.],
                [6., 5.]])
    """
    outputs, inputs, orientations, *kernel = weight.shape
    entries = weight.reshape(outputs, 1, inputs, -1)
    place = _places(indices)
    rotated = torch.zeros_like(entries).repeat(1, len(place), 1, 1)
    rotated.scatter_(3, place[None, :, None].expand_as(rotated), entries.expand_as(rotated))
    return rotated.view(outputs * len(place), inputs * orientations, *kernel)


def rotated_filters_gradient(grad: Tensor, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of the kernels of `rotated_filters`.

    Args:
        grad (Tensor): ``(O * R, I * orientations, kh, kw)``.
        indices (Tensor): As for `rotated_filters`.
        shape (tuple[int, ...]): Of the kernels.

    Returns:
        Tensor: ``(O, I, orientations, kh, kw)``.

    Examples:
        >>> indices = torch.tensor([[1, 2], [2, 1]]).view(2, 1, 1, 2)
        >>> grad = torch.tensor([1., 2., 3., 4.]).view(2, 2, 1, 1)
        >>> rotated_filters_gradient(grad, indices, (1, 1, 2, 1, 1)).flatten()
        tensor([5., 5.])
    """
    place = _places(indices)
    grad = grad.reshape(shape[0], len(place), shape[1], -1)
    return grad.gather(3, place[None, :, None].expand_as(grad)).sum(1).view(shape)


def _places(indices: Tensor) -> Tensor:
    """Where each entry of a kernel goes, ``(R, entries)``."""
    return indices.flatten(0, 2).long().t() - 1


def rotated_feature_align(features: Tensor, boxes: Tensor, spatial_scale: float, points: int) -> Tensor:
    """Adds to each pixel what lies at the center of its box, or at the center and the corners.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        boxes (Tensor): One for each pixel, ``(B, H, W, 5)``: center y, center x, width, height, angle in radians.
        spatial_scale (float): From the coordinates of boxes to those of the features.
        points (int): 1 or 5.

    Returns:
        Tensor: ``(B, C, H, W)``, differentiable in the features.

    Examples:
        >>> features = torch.arange(4.).view(1, 1, 2, 2)
        >>> rotated_feature_align(features, torch.ones(1, 2, 2, 5), 1., 1)
        tensor([[[[3., 4.],
                  [5., 6.]]]])
    """
    features = at_least_single(features)
    boxes = boxes.to(features.dtype)
    y, x, width, height = (boxes[..., :4] * spatial_scale).unbind(-1)
    y, x = y[..., None], x[..., None]
    if points > 1:
        cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        across = boxes.new_tensor([0, 1, -1, -1, 1]) * width[..., None] / 2
        along = boxes.new_tensor([0, 1, 1, -1, -1]) * height[..., None] / 2
        y, x = (y + across * sin[..., None] + along * cos[..., None],
                x + across * cos[..., None] - along * sin[..., None])
    sampled = pool(features, torch.arange(len(features), device=features.device), y, x) * points
    return features + sampled.movedim(-1, 1)


def biased_leaky_relu(features: Tensor, bias: Tensor, reference: Tensor, is_gradient: bool, slope: float,
                      scale: float) -> Tensor:
    """A leaky ReLU with a bias before and a factor after, or its gradient.

    Args:
        features (Tensor): ``(B, C, ...)``, or the gradient of what was returned for them.
        bias (Tensor): ``(C,)``, or empty.
        reference (Tensor): For the gradient: what was returned, of the same shape.
        is_gradient (bool): Whether to give the gradient.
        slope (float): Of negative values.
        scale (float): Factor.

    Returns:
        Tensor: ``(B, C, ...)``.

    Examples:
        >>> biased_leaky_relu(torch.tensor([[1., -3.]]), torch.ones(2), torch.zeros(0), False, 0.5, 2.)
        tensor([[ 4., -2.]])
    """
    if bias.numel():
        features = features + bias.view(1, -1, *[1] * (features.dim() - 2))
    decides = reference if is_gradient else features
    return torch.where(decides > 0, features, features * slope) * scale
