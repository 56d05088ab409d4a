"""The box head of a two-stage detector, run on any features and proposals."""
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from mmfeatdistill.taps.reader import TapReader


class BoxHeadOutput(NamedTuple):
    """What a box head makes of R proposals.

    Attributes:
        feature (Tensor): What the classifier reads, after the last shared layer and its activation; shape (R, D).
        logits (Tensor): Shape (R, classes + 1).
        offsets (Tensor): Box deltas, shape (R, 4 * classes), or (R, 4) where they do not depend on the class.
    """

    feature: Tensor
    logits: Tensor
    offsets: Tensor


def run_box_head(model: nn.Module, levels: Sequence[Tensor], rois: Tensor) -> BoxHeadOutput:
    """Runs the RoI extractor and the box head of a detector; of a cascade, the first stage.

    Gradient flows to the levels and to the head's weights as far as they require it. It cannot flow to the rois.
    The RoI extractors of mmdet sort the proposals by level on the host: each run waits for the device once a level.

    Args:
        model (nn.Module): A two-stage detector of mmdet.
        levels (Sequence[Tensor]): Feature maps (N, C, H, W) as its neck gives them, of this or another network. The
            extractor takes as many of the first as it is made for.
        rois (Tensor): Index of the image and corners, shape (R, 5); R may be 0.

    Returns:
        BoxHeadOutput: Feature, logits and offsets of each proposal.

    Raises:
        ValueError: The model has no such head, or there are too few levels.
    """
    box_head, run = _first_stage(model, levels, rois)
    features, (logits, offsets) = TapReader(box_head, ['fc_cls:in'], 'the box head').read(run)
    return BoxHeadOutput(features['fc_cls:in'][0], logits, offsets)


def box_feature(model: nn.Module, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
    """The feature that :func:`run_box_head` gives, without running the classifier and the regressor.

    Args:
        model (nn.Module): See :func:`run_box_head`.
        levels (Sequence[Tensor]): Feature maps (N, C, H, W).
        rois (Tensor): Shape (R, 5).

    Returns:
        Tensor: Shape (R, D).

    Raises:
        ValueError: See :func:`run_box_head`.
    """
    box_head, run = _first_stage(model, levels, rois)
    return TapReader(box_head, ['fc_cls:in'], 'the box head').read_until_complete(run)['fc_cls:in'][0]


def box_classifier(model: nn.Module) -> nn.Module:
    """The linear layer that gives the logits.

    Args:
        model (nn.Module): See :func:`run_box_head`.

    Returns:
        nn.Module: ``fc_cls`` of the box head; of a cascade, of the first stage.

    Raises:
        ValueError: See :func:`run_box_head`.
    """
    return _parts(model)[1].fc_cls


def _first_stage(model: nn.Module, levels: Sequence[Tensor], rois: Tensor) -> tuple[nn.Module, partial]:
    """The box head, and what runs it."""
    extractor, box_head = _parts(model)
    if len(levels) < extractor.num_inputs:
        raise ValueError(f'the RoI extractor reads {extractor.num_inputs} levels of features, got {len(levels)}.')
    widths = {level.shape[1] for level in levels[:extractor.num_inputs]}
    if widths != {extractor.out_channels}:
        raise ValueError(f'the RoI extractor reads features of {extractor.out_channels} channels, got '
                         f"{', '.join(map(str, sorted(widths)))}; tap what the box head reads, as 'neck'.")
    return box_head, partial(_run, model.roi_head, extractor, box_head, levels, rois)


def _run(roi_head: nn.Module, extractor: nn.Module, box_head: nn.Module, levels: Sequence[Tensor],
         rois: Tensor) -> tuple[Tensor, Tensor]:
    features = extractor(tuple(levels[:extractor.num_inputs]), rois)
    return box_head(roi_head.shared_head(features) if roi_head.with_shared_head else features)


def _parts(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The RoI extractor and the box head, of the first stage where there are several."""
    roi_head = getattr(model, 'roi_head', None)
    extractor, box_head = (_first(getattr(roi_head, part, None)) for part in ('bbox_roi_extractor', 'bbox_head'))
    if extractor is None or not hasattr(box_head, 'fc_cls') or not hasattr(box_head, 'fc_reg'):
        head = 'no roi_head' if roi_head is None else (
            f'the roi_head {type(roi_head).__name__} with the bbox_head {type(box_head).__name__}')
        raise ValueError(f'{type(model).__name__} has {head}; a two-stage detector is needed whose box head ends in '
                         "'fc_cls' and 'fc_reg', such as Faster R-CNN, Mask R-CNN or Cascade R-CNN.")
    return extractor, box_head


def _first(part: object) -> object:
    return part[0] if isinstance(part, nn.ModuleList) else part
