"""Bilinear sampling of feature maps, which pooling of regions is made of."""
import torch
from torch import Tensor
from torch.nn import functional as F


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each point and their bilinear weights.

    A point up to one pixel outside of the map takes the value of the border, one farther outside has weights of zero.

    Args:
        y (Tensor): Vertical positions, of any shape; 0 is the center of the first row.
        x (Tensor): Horizontal positions, of the same shape.
        height (int): Of the map.
        width (int): Of the map.

    Returns:
        tuple[Tensor, Tensor]: Positions in the flattened map (int64), and weights, differentiable in ``y`` and ``x``;
        both ``(*y.shape, 4)``.

    Examples:
        >>> corners(torch.tensor(0.25), torch.tensor(1.), 3, 4)
        (tensor([1, 2, 5, 6]), tensor([0.7500, 0.0000, 0.2500, 0.0000]))
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    (top, bottom, low), (left, right, near) = (_neighbors(y, height), _neighbors(x, width))
    index = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], -1)
    weight = torch.stack([(1 - low) * (1 - near), (1 - low) * near, low * (1 - near), low * near], -1)
    # Positions may be infinite or no number; neither must reach what is multiplied by the weight.
    return index, torch.where(inside[..., None], weight, 0)


def _neighbors(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a position, and how far it is from the one before."""
    position = position.nan_to_num(-2., -2., -2.).clamp(0, size - 1)
    before = position.detach().long()
    return before, (before + 1).clamp(max=size - 1), position - before


def pool(features: Tensor, batch_index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The mean of a feature map over points, for many sets of points.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        batch_index (Tensor): Which image each set is of, ``(N,)``, int64.
        y (Tensor): Vertical positions, ``(N, *bins, P)`` for P points.
        x (Tensor): Horizontal positions, of the same shape.

    Returns:
        Tensor: ``(N, *bins, C)``, differentiable in the features and in the positions.

    Examples:
        >>> features = torch.arange(6.).view(1, 1, 2, 3)
        >>> pool(features, torch.tensor([0]), torch.tensor([[0., 1.]]), torch.tensor([[0., 0.5]]))
        tensor([[1.7500]])
    """
    channels, height, width = features.shape[1:]
    if y.numel() == 0:
        return features.new_zeros(*y.shape[:-1], channels) + 0 * features.sum()
    index, weight = corners(y, x, height, width)
    index = index + (batch_index * height * width).view(-1, *[1] * y.dim())
    # A bag of rows is summed without the rows ever being laid out side by side.
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
    bags = y[..., 0].numel()
    sums = F.embedding_bag(index.reshape(bags, -1), rows, mode='sum',
                           per_sample_weights=weight.reshape(bags, -1).to(rows.dtype))
    return sums.view(*y.shape[:-1], channels) / y.shape[-1]


def spread(grad: Tensor, batch_index: Tensor, y: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of a feature map that was sampled at one point for each channel.

    Args:
        grad (Tensor): Gradient of the samples, ``(N, C, ...)``.
        batch_index (Tensor): ``(N,)``, int64.
        y (Tensor): Vertical positions, ``(N, C, ...)``.
        x (Tensor): Horizontal positions, of the same shape.
        shape (tuple[int, ...]): Of the map, ``(B, C, H, W)``.

    Returns:
        Tensor: Of this shape.

    Examples:
        >>> one = torch.ones(1, 1)
        >>> spread(one, torch.tensor([0]), 0.5 * one, one, (1, 1, 2, 2))
        tensor([[[[0.0000, 0.5000],
                  [0.0000, 0.5000]]]])
    """
    batch_size, channels, height, width = shape
    index, weight = corners(y, x, height, width)
    channel = torch.arange(channels, device=grad.device).view(1, -1, *[1] * (index.dim() - 2))
    plane = batch_index.view(-1, *[1] * (index.dim() - 1)) * channels + channel
    flat = grad.new_zeros(batch_size * channels * height * width)
    flat.index_add_(0, (plane * height * width + index).flatten(), (grad[..., None] * weight).flatten())
    return flat.view(shape)
