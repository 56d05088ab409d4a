"""Multi-scale deformable attention."""
from torch import Tensor
from torch.nn import functional as F

from mmfeatdistill.mmcv_ops.differentiation import at_least_single


def deformable_attention(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of values that each query samples from several feature maps.

    Args:
        value (Tensor): All maps after each other, ``(B, sum of H * W, heads, D)``.
        shapes (Tensor): Height and width of each map, ``(L, 2)``, int64.
        locations (Tensor): Where each query samples, ``(B, Q, heads, L, P, 2)`` as (x, y), in sizes of the map.
        weights (Tensor): ``(B, Q, heads, L, P)``.

    Returns:
        Tensor: ``(B, Q, heads * D)``, differentiable in value, locations and weights.

    Examples:
        >>> value, shapes = torch.arange(4.).view(1, 4, 1, 1), torch.tensor([[2, 2]])
        >>> deformable_attention(value, shapes, torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1))
        tensor([[[1.5000]]])
    """
    value = at_least_single(value)
    locations, weights = locations.to(value.dtype), weights.to(value.dtype)
    (batch, _, heads, depth), queries = value.shape, locations.shape[1]
    sizes = [(height, width) for height, width in shapes.tolist()]
    maps = value.split([height * width for height, width in sizes], 1)
    # (B * heads, Q, L, P, ...), with positions from -1 to 1
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
    total = value.new_zeros(batch * heads, depth, queries)
    for level, ((height, width), part) in enumerate(zip(sizes, maps)):
        part = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        sampled = F.grid_sample(part, grid[:, :, level], 'bilinear', 'zeros', align_corners=False)
        total = total + (sampled * weights[..., level, :]).sum(-1)
    return total.view(batch, heads * depth, queries).transpose(1, 2).contiguous()
