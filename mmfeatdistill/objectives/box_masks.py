"""Where the objects of a batch are on a feature map."""
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_BOXES_AT_ONCE = 16
"""Of an image, so that an image of many boxes does not take a map for each of them."""


def ground_truth_boxes(data_samples: Optional[Sequence[Any]]) -> list[Tensor]:
    """The labeled boxes of each image, without those that are to be ignored.

    Args:
        data_samples (Sequence, optional): Of a batch, as detectors of mmdet take them.

    Returns:
        list[Tensor]: For each image, corners in pixels, shape (B, 4); B may be 0.

    Raises:
        ValueError: The data samples have no boxes, or rotated ones.

    Examples:
        >>> from mmengine.structures import InstanceData
        >>> from mmdet.structures import DetDataSample
        >>> sample = DetDataSample(gt_instances=InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 4.0]])))
        >>> ground_truth_boxes([sample])
        [tensor([[0., 0., 8., 4.]])]
    """
    found = [getattr(getattr(sample, 'gt_instances', None), 'bboxes', None) for sample in data_samples or []]
    boxes = [getattr(of_image, 'tensor', of_image) for of_image in found if of_image is not None]
    if not boxes or len(boxes) < len(found):
        given = type(data_samples[0]).__name__ if data_samples else data_samples
        raise ValueError("the data samples have no boxes ('gt_instances.bboxes'), as those of detectors in mmdet have; "
                         f'got {given!r}. Is with_bbox=True missing at LoadAnnotations in the pipeline?')
    wrong = [tuple(of_image.shape) for of_image in boxes if of_image.shape[1:] != (4,)]
    if wrong:
        raise ValueError(f'boxes of the shape (B, 4) are needed, corners in pixels, got {wrong[0]}; rotated boxes are '
                         'not known here.')
    return boxes


def box_masks(boxes: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]],
              map_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Foreground and background of a batch, each position with one over the area that it belongs to.

    .. math:: f_i = \max_{b \ni i} \frac{1}{w_b h_b}, \qquad
        g_i = \begin{cases} 1 / |\{j : f_j = 0\}| & f_i = 0 \\ 0 & \text{else} \end{cases}

    A box holds the cells from its left and upper corner, rounded down, to its right and lower one, rounded up, both
    included; :math:`w_b` and :math:`h_b` count these, also beyond the map. Where boxes overlap, the smallest
    counts. Of FGD (arXiv 2111.11837), as in the authors' code.

    Args:
        boxes (Sequence[Tensor]): For each of N images, corners in pixels, shape (B, 4); B may be 0.
        image_sizes (Sequence[tuple[int, int]]): For each image, the height and width in pixels that the map extends
            over.
        map_size (Sequence[int]): Height and width of the map, in cells.

    Returns:
        tuple[Tensor, Tensor]: Foreground and background, shape (N, H, W), float32 or wider.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0.0, 15.0, 7.0], [16.0, 0.0, 17.0, 1.0]])
        >>> foreground, background = box_masks([boxes], [(16, 32)], (2, 4))
        >>> foreground
        tensor([[[0.1667, 0.1667, 0.2500, 0.2500],
                 [0.1667, 0.1667, 0.2500, 0.2500]]])
        >>> background.sum()
        tensor(0.)
    """
    height, width = map_size
    # What an image lacks is NaN, which is inside of nothing; no number of boxes has to be known on the host.
    cells = pad_sequence([_in_cells(of_image, size, map_size) for of_image, size in zip(boxes, image_sizes)],
                         batch_first=True, padding_value=torch.nan)
    left, top, right, bottom = cells[..., None].unbind(2)
    columns, rows = (torch.arange(side, device=cells.device) for side in (width, height))
    values = 1 / ((right + 1 - left) * (bottom + 1 - top))
    across, down = (columns >= left) & (columns <= right), (rows >= top) & (rows <= bottom)
    foreground = cells.new_zeros(len(boxes), height, width)
    for part in zip(*(tensor.split(_BOXES_AT_ONCE, dim=1) for tensor in (across, down, values))):
        is_across, is_down, value = part
        inside = is_down[..., None] & is_across[:, :, None]
        found = torch.where(inside, value[..., None], 0)
        foreground = torch.cat([foreground[:, None], found], dim=1).amax(1)
    is_empty = foreground == 0
    return foreground, torch.where(is_empty, 1 / is_empty.sum((1, 2), keepdim=True), 0)


def _in_cells(boxes: Tensor, image_size: tuple[int, int], map_size: Sequence[int]) -> Tensor:
    """Corners in cells, rounded outwards."""
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    left, top, right, bottom = boxes.unbind(1)
    # Multiplied first, so that a corner between two cells stays there: 24 / 1344 * 168 is more than 3 in float32.
    (left, right), (top, bottom) = ([corner * cells / pixels for corner in corners] for corners, cells, pixels in (
        ((left, right), map_size[1], image_size[1]), ((top, bottom), map_size[0], image_size[0])))
    return torch.stack([left.floor(), top.floor(), right.ceil(), bottom.ceil()], dim=1)
