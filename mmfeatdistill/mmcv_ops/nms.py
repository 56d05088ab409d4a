"""Non-maximum suppression of upright boxes, and their overlaps."""
import torch
from torch import Tensor

from mmfeatdistill.mmcv_ops.differentiation import at_least_single
from mmfeatdistill.mmcv_ops.torchvision_operators import torchvision_operator

NAIVE, LINEAR, GAUSSIAN = range(3)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy suppression, by torchvision.

    Args:
        boxes (Tensor): ``(N, 4)``: x1, y1, x2, y2.
        scores (Tensor): ``(N,)``.
        iou_threshold (float): A box that overlaps a kept one more is dropped.
        offset (int): 1 if x2 and y2 are the last pixels inside, otherwise 0.

    Returns:
        Tensor: Indices of the kept boxes (int64), the best first.

    Raises:
        ImportError: torchvision cannot be loaded.

    Examples:
        >>> nms(torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.]]), torch.tensor([0.5, 0.9]), 0.5)
        tensor([1])
    """
    boxes = at_least_single(boxes)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
    return torchvision_operator('nms')(boxes, scores.to(boxes.dtype), iou_threshold)


def soft_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int,
             offset: int) -> tuple[Tensor, Tensor]:
    """Suppression that lowers the scores of boxes by their overlap with better ones.

    Args:
        boxes (Tensor): ``(N, 4)``, as for `nms`.
        scores (Tensor): ``(N,)``.
        iou_threshold (float): From which overlap on ``NAIVE`` and ``LINEAR`` lower a score.
        sigma (float): Width of ``GAUSSIAN``.
        min_score (float): A box whose score gets lower is dropped.
        method (int): ``NAIVE`` drops, ``LINEAR`` multiplies by ``1 - IoU``, ``GAUSSIAN`` by ``exp(-IoU^2 / sigma)``.
        offset (int): As for `nms`.

    Returns:
        tuple[Tensor, Tensor]: Boxes with their new scores ``(K, 5)``, and their indices ``(K,)``, the best first.

    Examples:
        >>> boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 2.]])
        >>> soft_nms(boxes, torch.tensor([0.5, 0.8]), 0.3, 0.5, 0.01, LINEAR, 0)[0][:, 4]
        tensor([0.8000, 0.2500])
    """
    overlaps = box_iou(boxes, boxes, offset=offset)
    scores, left = scores.clone(), torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(left):
        best = left[scores[left].argmax()]
        kept.append(best)
        left = left[left != best]
        iou = overlaps[best, left]
        if method == GAUSSIAN:
            factor = torch.exp(-iou**2 / sigma)
        else:
            factor = torch.where(iou >= iou_threshold, 1 - iou if method == LINEAR else torch.zeros_like(iou), 1)
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    order = torch.stack(kept) if kept else left
    return torch.cat([boxes[order], scores[order, None]], 1), order


def nms_match(detections: Tensor, iou_threshold: float) -> list[list[int]]:
    """Greedy suppression that tells which boxes each kept one suppressed.

    Args:
        detections (Tensor): ``(N, 5)``: x1, y1, x2, y2, score.
        iou_threshold (float): A box that overlaps a kept one as much, or more, is dropped.

    Returns:
        list[list[int]]: For each kept box, the best first: its index, and those that it suppressed.

    Examples:
        >>> nms_match(torch.tensor([[0., 0., 4., 4., 0.5], [0., 0., 4., 5., 0.9], [8., 8., 9., 9., 0.1]]), 0.5)
        [[1, 0], [2]]
    """
    overlaps = box_iou(detections[:, :4], detections[:, :4])
    left, groups = detections[:, 4].argsort(descending=True), []
    while len(left):
        same = overlaps[left[0], left] >= iou_threshold
        same[0] = True  # a box without an area overlaps nothing, itself included
        groups.append(left[same].tolist())
        left = left[~same]
    return groups


def greedy(order: Tensor, suppresses: Tensor) -> Tensor:
    """What greedy suppression keeps, given which box suppresses which.

    Args:
        order (Tensor): Indices of the boxes, the best first, ``(N,)``.
        suppresses (Tensor): Whether a box suppresses another, in this order, ``(N, N)``, bool.

    Returns:
        Tensor: The kept indices, the best first.

    Examples:
        >>> greedy(torch.tensor([2, 0, 1]), torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool())
        tensor([2, 1])
    """
    table = suppresses.cpu().numpy()
    is_kept = torch.ones(len(order), dtype=torch.bool)
    flags = is_kept.numpy()
    for place in range(len(order)):
        if flags[place]:
            flags[place + 1:] &= ~table[place, place + 1:]
    return order[is_kept.to(order.device)]


def box_iou(boxes: Tensor, others: Tensor, of_first: bool = False, aligned: bool = False, offset: int = 0) -> Tensor:
    """Intersection over union of boxes.

    Args:
        boxes (Tensor): ``(N, 4)``: x1, y1, x2, y2.
        others (Tensor): ``(M, 4)``.
        of_first (bool): Whether to divide by the area of ``boxes`` instead of the union.
        aligned (bool): Whether each box meets the other of the same index only.
        offset (int): As for `nms`.

    Returns:
        Tensor: ``(N, M)``, or ``(N,)`` if aligned.

    Examples:
        >>> box_iou(torch.tensor([[0., 0., 4., 4.]]), torch.tensor([[0., 0., 4., 2.], [5., 5., 6., 6.]]))
        tensor([[0.5000, 0.0000]])
    """
    area, other_area = (((box[:, 2:] - box[:, :2]) + offset).prod(1) for box in (boxes, others))
    if not aligned:
        boxes, area = boxes[:, None], area[:, None]
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (high - low + offset).clamp(min=0).prod(-1)
    return common / (area if of_first else area + other_area - common)
