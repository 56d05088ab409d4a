"""What is wrong with a batch that a training step has failed on."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from torch import Tensor, nn

from mmfeatdistill.taps.dry_run import image_channels
from mmfeatdistill.zoo.packages import TASK_LIBRARIES

_LABELS = (('gt_instances', 'labels'), ('gt_sem_seg', 'data'), ('gt_label', None))
"""Where the libraries' data samples have their classes."""


class BatchError(ValueError):
    """A batch that no training step can be made on; the message starts with the config key of its data."""


def num_classes(model: nn.Module) -> Optional[int]:
    """How many classes a network has.

    Args:
        model (nn.Module): Of any MM library.

    Returns:
        int: None where neither a head nor the network says it, and the layers of the head do not show it.
    """
    for path, module in model.named_modules():
        # The head of an RPN tells objects from background, and has one class.
        if 'head' in path and 'rpn' not in path and isinstance(getattr(module, 'num_classes', None), int):
            return module.num_classes
    own = getattr(model, 'num_classes', None)
    return own if isinstance(own, int) else _width_of_scores(getattr(model, 'head', None))


def _width_of_scores(head: Any) -> Optional[int]:
    """How wide the scores of a head are that says nothing, such as the one of Vision GNN.

    Only a head of mmpretrain's kind is sure to give scores of classes, and only if all its layers are alike that no
    later layer goes on from.
    """
    if 'ClsHead' not in {cls.__name__ for cls in type(head).__mro__}:
        return None
    widths = [module.weight.shape[:2] for module in head.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    last = {out for index, (out, _) in enumerate(widths) if out not in {taken for _, taken in widths[index + 1:]}}
    return last.pop() if len(last) == 1 else None


def image_fault(model: nn.Module, batch: Any) -> Optional[str]:
    """What a batch lacks or has wrongly, whether or not it has labels.

    Args:
        model (nn.Module): The network that is trained.
        batch (dict): ``inputs``, before or after the data preprocessor.

    Returns:
        str: A sentence or two; None where nothing is found.

    Examples:
        >>> image_fault(nn.Conv2d(3, 8, 1), dict(inputs=[]))
        'the batch is empty; look at batch_size, the sampler and the filters of the dataset.'
    """
    if not isinstance(batch, Mapping) or 'inputs' not in batch:
        return ("a batch is a dict with 'inputs' and 'data_samples', as the collate functions of the MM libraries make "
                f'it, got {sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__}.')
    images = batch['inputs']
    if not isinstance(images, (Tensor, Sequence)):
        return None
    if not len(images):
        return 'the batch is empty; look at batch_size, the sampler and the filters of the dataset.'
    return _fault_of_images(model, images) if _is_one_by_one(images) else None


def fault(model: nn.Module, batch: Any) -> Optional[str]:
    """What a labeled batch lacks or has wrongly.

    Args:
        model (nn.Module): The network that is trained.
        batch (dict): ``inputs`` and ``data_samples``, before or after the data preprocessor.

    Returns:
        str: A sentence or two; None where nothing is found.

    Examples:
        >>> fault(nn.Conv2d(3, 8, 1), dict(inputs=[]))
        'the batch is empty; look at batch_size, the sampler and the filters of the dataset.'
    """
    found = image_fault(model, batch)
    if found is not None:
        return found
    images, samples = batch['inputs'], batch.get('data_samples')
    # Views, branches or samples in one dict: what is right there only the network knows.
    is_common = isinstance(images, (Tensor, Sequence)) and _is_one_by_one(images) and (
        samples is None or isinstance(samples, Sequence))
    return _fault_of_samples(model, len(images), samples) if is_common else None


@contextmanager
def explain_batch_errors(model: nn.Module, batch: Any,
                         find: Callable[[nn.Module, Any], Optional[str]] = fault) -> Iterator[None]:
    """Says what is wrong with a batch where a step fails on it; the labels and images of others are not looked at.

    Args:
        model (nn.Module): The network that is trained.
        batch (dict): ``inputs`` and ``data_samples``, before or after the data preprocessor.
        find (Callable): What looks for faults. Defaults to :func:`fault`.

    Raises:
        BatchError: In place of any error from within, if the batch has one of the faults that ``find`` knows.
    """
    try:
        yield
    except BatchError:
        raise
    except Exception as error:
        try:
            found = find(model, batch)
        except Exception:  # noqa: BLE001 - after a failed assertion on a GPU, all that looks at its tensors fails too
            found = None
        if found is None:
            raise
        raise BatchError(f'train_dataloader: {found} The step failed with {type(error).__name__}: {error}') from error


def _is_one_by_one(images: Any) -> bool:
    """Whether a batch has the common form: images one by one or in one tensor."""
    return isinstance(images, Tensor) or all(isinstance(image, Tensor) and image.dim() == 3 for image in images)


def _fault_of_images(model: nn.Module, images: Any) -> Optional[str]:
    wanted = image_channels(model)
    found = {int(image.shape[0]) for image in images if isinstance(image, Tensor) and image.dim() == 3}
    if wanted is None or found <= {wanted}:
        return None
    return (f'images have {", ".join(map(str, sorted(found)))} channels, and the network takes {wanted}; look at '
            'color_type of LoadImageFromFile in the pipeline.')


def _fault_of_samples(model: nn.Module, count: int, samples: Any) -> Optional[str]:
    if not samples:
        return ("the batch has no 'data_samples', which hold the ground truth; the pipeline must end in the library's "
                'PackDetInputs, PackSegInputs or PackInputs.')
    if len(samples) != count:
        return f'the batch has {count} images and {len(samples)} data samples.'
    theirs, own = (type(thing).__module__.partition('.')[0] for thing in (samples[0], model))
    if theirs != own and {theirs, own} <= {*TASK_LIBRARIES}:
        return (f"the data samples are {theirs}'s {type(samples[0]).__name__}, and the network is of {own}; the "
                f"pipeline must pack its results as {own} does.")
    classes = num_classes(model)
    ignored = {getattr(module, 'ignore_index', 255) for module in model.modules()}
    for index, sample in enumerate(samples):
        labels = [(f'{name}.{part}' if part else name, _labels(sample, name, part)) for name, part in _LABELS]
        given = [(name, values) for name, values in labels if isinstance(values, Tensor)]
        if not given and not _has_ground_truth(sample):
            return (f'data sample {index} has no ground truth, such as {", ".join(name for name, _ in labels)}; the '
                    'pipeline must load the annotations (LoadAnnotations) and pack them.')
        if (boxes := sample.get('gt_instances')) is not None and 'labels' not in boxes:
            return f'data sample {index} has gt_instances without labels: {", ".join(boxes.keys()) or "nothing"}.'
        for name, values in given:
            outside = [label for label in values.unique().tolist() if classes is not None and not 0 <= label < classes]
            if wrong := [label for label in outside if name != 'gt_sem_seg.data' or label not in ignored]:
                return (f'label {wrong[0]} is out of range for {classes} classes (data sample {index}, {name}; they '
                        f'are 0 to {(classes or 0) - 1}); look at metainfo.classes of the dataset and num_classes of '
                        'the heads.')
    return None


def _labels(sample: Any, name: str, part: Optional[str]) -> Any:
    """The classes of a data sample, if it has them there; None otherwise."""
    held = sample.get(name) if hasattr(sample, 'get') else None
    return held if part is None else None if held is None or part not in held else held.get(part)


def _has_ground_truth(sample: Any) -> bool:
    # A sample of several tasks, as mmpretrain's MultiTaskHead takes them, holds one sample for each.
    return hasattr(sample, 'keys') and any(name.startswith('gt_') or _has_ground_truth(sample.get(name))
                                           for name in sample.keys())
