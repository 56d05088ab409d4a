"""How good each query of a transformer detector is: by its scores, and by the labels."""
from collections.abc import Sequence

import torch
from torch import Tensor


def query_scores(logits: Tensor, boxes: Tensor, labeled: Sequence[Tensor], max_per_image: int) -> Tensor:
    r"""The best score of each query times how well its box fits an object, where it is among those that are kept.

    .. math:: a_q = \max_k p_{qk} \cdot \max_b \mathrm{IoU}(\hat b_q, b)

    with the sigmoid scores p. An image without labeled boxes has the scores alone. A query counts 0 that has none of
    the ``max_per_image`` best pairs of a query and a class, which are what the detector predicts. Of DETRDistill (arXiv
    2211.10156).

    Args:
        logits (Tensor): Of each of L decoder layers, shape (L, N, Q, K).
        boxes (Tensor): Center, width and height relative to the image, shape (L, N, Q, 4).
        labeled (Sequence[Tensor]): For each of N images, corners relative to the image, shape (B, 4); B may be 0.
        max_per_image (int): How many pairs are kept.

    Returns:
        Tensor: Shape (L, N, Q), float32 or wider.

    Examples:
        >>> logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]]).view(1, 1, 2, 2)
        >>> boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.25, 1.0, 0.5]]).view(1, 1, 2, 4)
        >>> query_scores(logits, boxes, [torch.tensor([[0.0, 0.0, 1.0, 1.0]])], max_per_image=3)
        tensor([[[0.5000, 0.4999]]])
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    scores, boxes = logits.to(dtype).sigmoid(), boxes.to(dtype)
    kept = scores.flatten(2).topk(min(max_per_image, scores.shape[2:].numel()), dim=2).indices // scores.shape[3]
    best = scores.amax(3)
    best = torch.zeros_like(best).scatter(2, kept, 1) * best
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat([center - half, center + half], dim=3)
    fits = [_best_overlap(corners[:, image], of_image.to(dtype)) for image, of_image in enumerate(labeled)]
    return best * torch.stack(fits, dim=1) if fits else best


def _best_overlap(boxes: Tensor, labeled: Tensor) -> Tensor:
    """The greatest intersection over union of each box, shape (L, Q), with any of the labeled; 1 without these."""
    if not len(labeled):
        return boxes.new_ones(boxes.shape[:2])
    boxes = boxes[:, :, None]
    upper, lower = torch.maximum(boxes[..., :2], labeled[:, :2]), torch.minimum(boxes[..., 2:], labeled[:, 2:])
    shared = (lower - upper).clamp(min=0).prod(-1)
    areas = [(of[..., 2:] - of[..., :2]).prod(-1) for of in (boxes, labeled)]
    return (shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)).amax(-1)
