"""Whether taps give in training what they give in the dry run, which is made in eval mode as teachers are."""
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.taps.dry_run import Entry, run_entry
from mmfeatdistill.taps.dummy_batch import has_masks, labeled_sample, library_of, unlabeled_sample
from mmfeatdistill.taps.isolation import eval_isolated, training_isolated
from mmfeatdistill.taps.layout import Layout, to_map
from mmfeatdistill.taps.reader import Features, TappedPass, TapReader, why_cut_off
from mmfeatdistill.taps.tap import Tap

_IMAGES = 2
"""Of the training pass: as many rows again show what is one per image; BatchNorm of a vector needs two."""

_REGIONS = 8
"""That a head samples of an image."""

Passes = Callable[[nn.Module, Tensor], Sequence[Callable[[], Any]]]
"""Of a network and the image of the dry run: the ways in which a training step may run it, of which one works."""


class TapDiffersInTraining(ValueError):
    """A tap that gives something else in training than when the network predicts.

    Attributes:
        tap (str): Which.
    """

    def __init__(self, tap: str, message: str) -> None:
        super().__init__(message)
        self.tap = tap


def labeled_passes(model: nn.Module, inputs: Tensor) -> list[Callable[[], Any]]:
    """How a training step with labels runs a network: with made-up ones.

    Args:
        model (nn.Module): An MM model.
        inputs (Tensor): The image of the dry run.

    Returns:
        list[Callable[[], Any]]: With and without masks: most heads of masks fail without, and some of boxes with them.

    Raises:
        LookupError: No labels are known for the model.
    """
    library = library_of(model)
    if library is None:
        raise LookupError(f'no labels are known for {type(model).__name__}')

    def run(with_masks: bool) -> Any:
        batch, samples = _labeled(inputs, library, with_masks)
        return model(batch, samples, mode='loss')
    return [partial(run, masks) for masks in sorted((False, True), key=lambda masks: masks != has_masks(model))]


def unlabeled_passes(model: nn.Module, inputs: Tensor, entry: Entry) -> list[Callable[[], Any]]:
    """How a training step without labels runs a network: through one of its entries.

    Args:
        model (nn.Module): An MM model.
        inputs (Tensor): The image of the dry run.
        entry (str): See :func:`mmfeatdistill.taps.dry_run.run_entry`.

    Returns:
        list[Callable[[], Any]]: One.
    """
    samples = [unlabeled_sample(*inputs.shape[-2:]) for _ in range(_IMAGES)]
    return [partial(run_entry, model, entry, inputs.repeat(_IMAGES, 1, 1, 1), samples)]


def check_training(tapped: TappedPass, taps: Collection[str], passes: Passes = labeled_passes) -> None:
    """Compares what taps give in training with the dry run (see :func:`compare_training`).

    Args:
        tapped (TappedPass): The dry run; its reader learns how taps run in training.
        taps (Collection[str]): Those that are matched image by image.
        passes (Callable): How a training step runs the network. Defaults to :func:`labeled_passes`.

    Raises:
        TapDiffersInTraining: A tap gives something else in training; names taps that give the same, which were tried.
    """
    text, difference = next(iter(compare_training(tapped, taps, passes).items()), (None, ''))
    if text is not None:
        raise TapDiffersInTraining(text, f'{text!r} {difference}{_advice(tapped, text, passes)}')


def compare_training(tapped: TappedPass, taps: Collection[str], passes: Passes = labeled_passes) -> dict[str, str]:
    """Runs a network once as in training, and compares its taps with those of the dry run.

    The pass is isolated (see :func:`mmfeatdistill.taps.isolation.training_isolated`), so a tap that names the same
    tensor in both has the same values. Where it gives more tensors in training, it is bound to those that it gave in
    the dry run. Nothing is compared where the network cannot be run so, which is logged; :meth:`TapReader.read` then
    still compares the number of features in every step.

    Args:
        tapped (TappedPass): The dry run; its reader learns how taps run in training.
        taps (Collection[str]): Those that are matched image by image.
        passes (Callable): How a training step runs the network. Defaults to :func:`labeled_passes`.

    Returns:
        dict[str, str]: What is different, by tap; taps that give the same are not in it. A tap that no gradient can
            leave is different.
    """
    reader, size = tapped.reader, tapped.inputs.shape[-2:]
    try:
        trained = _run(reader, passes(reader.model, tapped.inputs))
    except Exception as error:  # noqa: BLE001 - whatever a model or its losses cannot do with made-up labels
        _log_not_run(reader, f'{type(error).__name__}: {error}')
        return {}
    differences = {}
    for tap in (tap for tap in reader.taps if tap.text in taps):
        text, wanted, given = tap.text, tapped[tap.text], trained[tap.text]
        if text in reader.cut_off:
            differences[text] = why_cut_off(reader.model, tap.place.path).removesuffix('.')
            continue
        if any(tensor.shape[0] != 1 for tensor in wanted):
            continue  # refused by who matches it, with the reason
        layouts = tapped.layouts(text)
        bound = _same_tensors(wanted, given, [partial(_as_map, layout=layout, size=size) for layout in layouts])
        if bound is None:
            differences[text] = _difference(wanted, _selected(tap, given))
        elif [id(given[index]) for index in bound] != [id(tensor) for tensor in _selected(tap, given)]:
            reader.bind(text, bound)
            places = ', '.join(f"'{tap.place.path}[{index}]'" for index in bound)
            print_log(f'{reader.owner}: {text!r} is {places} in training, the same tensors as when it predicts.',
                      logger='current')
    return differences


@contextmanager
def _few_regions(model: nn.Module) -> Iterator[None]:
    """Lets heads sample few regions: on 512 of each image, a box head would take most of the time of a build."""
    samplers = [sampler for module in model.modules() for sampler in _listed(vars(module).get('bbox_sampler'))
                if isinstance(getattr(sampler, 'num', None), int)]
    numbers = [sampler.num for sampler in samplers]
    try:
        for sampler in samplers:
            sampler.num = min(sampler.num, _REGIONS)
        yield
    finally:
        for sampler, number in zip(samplers, numbers):
            sampler.num = number


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _selected(tap: Tap, given: list[Tensor]) -> list[Tensor]:
    """What a tap's own items are in training; nothing where there are no such items."""
    try:
        return list({id(tensor): tensor for tensor in tap.select(given)}.values())
    except ValueError:
        return []


def _as_map(tensor: Tensor, layout: Layout, size: Sequence[int]) -> Optional[Tensor]:
    """A tensor in a layout; None where it has another one."""
    try:
        return to_map(tensor, layout, size)
    except (ValueError, RuntimeError):
        return None


def _run(reader: TapReader, runs: Sequence[Callable[[], Any]]) -> Features:
    *others, last = (partial(_features, reader, run) for run in runs)
    for features in others:
        try:
            given = features()
            if reader.failure is None:
                return given
        except Exception:  # noqa: BLE001 - the next way may work
            pass
    return last()


def _features(reader: TapReader, run: Callable[[], Any]) -> Features:
    # With gradients, as parts that are to be run again in the backward pass are then found to have none.
    with training_isolated(reader.model), torch.enable_grad(), _few_regions(reader.model):
        given = reader.probe_places(run)
    return {tap.text: [tensor.detach() for tensor in tensors] for tap, tensors in zip(reader.taps, given)}


def _same_tensors(wanted: Sequence[Tensor], given: Sequence[Tensor],
                  convert: Sequence[Callable[[Tensor], Optional[Tensor]]]) -> Optional[list[int]]:
    """Which of the tensors of training each of the dry run's is; None where one is missing."""
    bound: list[int] = []
    for position, tensor in enumerate(wanted):
        # The same position first, as several may be equal.
        order = sorted(range(len(given)), key=lambda index: index != position)
        found = next((index for index in order if index not in bound
                      and _is_same(tensor, convert[position](given[index]))), None)
        if found is None:
            return None
        bound.append(found)
    return bound


def _is_same(single: Tensor, several: Optional[Tensor]) -> bool:
    """Whether the rows of a batch of equal images are the feature of the image."""
    if several is None or several.shape != (_IMAGES, *single.shape[1:]):
        return False
    if not single.is_floating_point():
        return torch.equal(single, several[:1])
    scale = single.abs().max().clamp(min=1e-12) if single.numel() else 1.0
    return torch.allclose(single / scale, several[:1] / scale, rtol=1e-3, atol=1e-4, equal_nan=True)


def _difference(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> str:
    if len(wanted) != len(given):
        return (f'gives {len(wanted)} feature(s) when the network predicts, as a teacher does, and {len(given)} when '
                'it trains, and they are not the same tensors')
    shapes = [(tuple(s.shape[1:]), tuple(t.shape[1:]), t.shape[0]) for s, t in zip(wanted, given)]
    for before, after, rows in shapes:
        if rows != _IMAGES:
            return (f'gives one row an image when the network predicts, and {rows} rows for {_IMAGES} images when it '
                    'trains')
        if before != after:
            # Rows of one width, more of them in training.
            queries = len(before) == len(after) == 2 and before[1:] == after[1:] and before < after
            return (f'gives {before} for an image when the network predicts, as a teacher does, and {after} when it '
                    f'trains{", such as queries that are added for denoising" if queries else ""}')
    return 'gives other values when the network trains than when it predicts, as a teacher does'


def _advice(tapped: TappedPass, text: str, passes: Passes) -> str:
    """Taps near by that give the same in both passes: every one was tried."""
    model = tapped.model
    tap = Tap.parse(text)
    path, part = tap.place.path, tap.place.path.partition('.')[0]
    names = [name for name, _ in model.named_modules() if name and not name.startswith('data_preprocessor')]
    # Inside the module first, then around it, then elsewhere in the same part, the outer modules before the inner.
    near = sorted(names, key=lambda name: (not name.startswith(f'{path}.'), -len(name) * path.startswith(f'{name}.'),
                                           name.partition('.')[0] != part, name.count('.')))
    evaluated, trained = _survey(model, names, tapped.inputs, passes)
    agreeing = []
    if tap.items == slice(None):
        pairs = [(evaluated.get(path, []), trained.get(path, []), index) for index in (-1, 0)]
        agreeing = [f'{path}[{index}]' for wanted, given, index in pairs
                    if wanted and given and _is_same(wanted[index], given[index])]
    agreeing += [name for name in near if name != path and _is_feature(evaluated.get(name, []))
                 and len(evaluated[name]) == len(trained.get(name, []))
                 and all(map(_is_same, evaluated[name], trained[name]))]
    if not agreeing:
        return '. Tap a place of the backbone or neck.'
    return f'. Tap {", ".join(map(repr, agreeing[:3]))}, which are the same in both.'


def _is_feature(tensors: Sequence[Tensor]) -> bool:
    return bool(tensors) and all(tensor.dim() > 1 and tensor.shape[0] == 1 and tensor.is_floating_point()
                                 for tensor in tensors)


def _survey(model: nn.Module, names: Sequence[str], inputs: Tensor,
            passes: Passes) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """What every module gives in its last call, when the network predicts and when it trains."""
    reader = TapReader(model, names, owner='model')
    sample = [unlabeled_sample(*inputs.shape[-2:])]
    with eval_isolated(model):
        evaluated, _ = reader.survey(lambda: model(inputs, sample, mode='tensor'))
    trained: dict[str, tuple[list[Tensor], int]] = {}
    for run in passes(model, inputs):
        with training_isolated(model), torch.enable_grad():
            trained, failure = reader.survey(run)
        if failure is None:
            break
    return ({name: tensors for name, (tensors, _) in evaluated.items()},
            {name: [tensor.detach() for tensor in tensors] for name, (tensors, _) in trained.items()})


def _labeled(inputs: Tensor, library: str, with_masks: bool) -> tuple[Tensor, list[Any]]:
    """The image of the dry run several times, each time with the same labels."""
    height, width = inputs.shape[-2:]
    generator = torch.Generator().manual_seed(0)
    sample = labeled_sample(library, height, width, generator, with_masks, with_masks).to(inputs.device)
    return inputs.repeat(_IMAGES, 1, 1, 1), [sample.clone() for _ in range(_IMAGES)]


def _log_not_run(reader: TapReader, reason: str) -> None:
    print_log(f'{reader.owner}: what it gives in training could not be compared with what it gives otherwise, as it '
              f'does not train on a made-up batch ({reason:.300}); the number of features is compared in every step.',
              logger='current', level=logging.DEBUG)
