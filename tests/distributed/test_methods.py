"""Every method in two processes: the losses and gradients of one process.

What holds for almost all: a process has the losses that one alone has for its half of the batch, and all processes have
the mean of the halves' gradients. Where a loss is a mean over images, or is divided by what all processes count
together, these are the losses and gradients of the joined batch.
"""
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.distributed.methods import OTHERS, WITH_EVERY_PART
from tests.distributed.steps import IMAGES, Step, Steps, build, part, steps

NO_MEAN_OVER_IMAGES = dict(
    RelationalDistance='compares pairs of images, and only those of one process',
    RelationalAngle='compares triplets of images, and only those of one process',
    DIST='correlates over the images of one process',
    AttentionGuided='divides by the norm over the images of one process',
    Pearson='standardizes the channels over the images of one process',
    WeightedError='divides by the weights of the images of one process',
    FCFD='normalizes mixed paths over the images of one process',
    FCFDBoxHead='looks at proposals that each process draws for itself',
    LSHRoI='looks at proposals that each process draws for itself',
    MaskedGenerator='hides what each process draws for itself')
"""By the type of an objective, a connector or a loss."""

DIVIDED_BY_ALL = {'CrossHead', 'SharedQueries'}
"""Objectives that divide by what all processes count, and so have other losses than a process alone for its half."""


class Alone(NamedTuple):
    """What one process finds, on each half of the batch and on all of it.

    Attributes:
        of_images: Which objectives are means over images.
        divided_by_all: Whether a loss is divided by what all processes count.
        draws_proposals: Whether the student's own losses depend on proposals that are drawn.
    """

    halves: list[Steps]
    entire: Steps
    of_images: dict[str, bool]
    divided_by_all: bool
    draws_proposals: bool


def alone(path: str) -> Alone:
    model, data = build(path)
    halves = [steps(model, model, part(data, start, start + IMAGES // 2), seed=rank)
              for rank, start in enumerate((0, IMAGES // 2))]
    kinds = {name: {type(module).__name__ for module in objective.modules()}
             for name, objective in model.objectives.items()}
    return Alone(halves, steps(model, model, data, seed=0),
                 {name: not found & NO_MEAN_OVER_IMAGES.keys() for name, found in kinds.items()},
                 any(found & DIVIDED_BY_ALL for found in kinds.values()), hasattr(model.student, 'roi_head'))


@pytest.fixture(scope='module', params=[
    *WITH_EVERY_PART, *(pytest.param(path, marks=pytest.mark.slow) for path in OTHERS)])
def method(request):
    """What one process finds with a config, and the results of two."""
    found = alone(request.param)  # while they still work
    pair = request.getfixturevalue('pair' if request.param in WITH_EVERY_PART else 'pair_of_others')
    return found, pair.results(request.param)


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5 * float(wanted[name].abs().max() + 1e-8))
        for name in found)


def of(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if name.startswith(prefix)}


def mean(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean by name; 0 is what is missing on one side."""
    both = {**first, **second}
    return {name: (first.get(name, 0 * both[name]) + second.get(name, 0 * both[name])) / 2 for name in both}


def test_each_process_has_the_losses_of_its_half_alone(method):
    one, two = method
    same = [close(found.losses, wanted.losses) for rank in range(2)
            for found, wanted in zip(two[rank]['steps'], one.halves[rank])]
    assert all(same) != one.divided_by_all, f'{same}: does the list above know it?'


def test_all_processes_have_the_mean_of_the_gradients_of_the_halves(method):
    one, two = method
    for first, second, *halves in zip(two[0]['steps'], two[1]['steps'], *one.halves):
        assert set(first.gradients) == set(two[0]['parameters']), 'DDP waits for every one; a teacher has none'
        assert all(torch.equal(value, second.gradients[name]) for name, value in first.gradients.items())
        wanted = mean(*(half.gradients for half in halves))
        if one.divided_by_all:
            continue  # they are those of the joined batch, below
        assert close({name: value for name, value in first.gradients.items() if name in wanted}, wanted)
        assert not any(value.any() for name, value in first.gradients.items() if name not in wanted)


def test_means_over_images_are_those_of_the_joined_batch(method):
    one, two = method
    together = [Step(mean(first.losses, second.losses), first.gradients)
                for first, second in zip(two[0]['steps'], two[1]['steps'])]
    for number, (name, of_images) in enumerate(one.of_images.items()):
        same = [close(of(f'{name}.', step.losses), of(f'{name}.', entire.losses))
                and (close(*(of(f'distiller.{number}.', found.gradients) for found in (step, entire)))
                     or not of(f'{name}.', entire.losses))  # switched off, there are zeros in two processes only
                for step, entire in zip(together, one.entire)]
        assert all(same) == of_images, f'{name}: does the list above know it?'
    if all(one.of_images.values()) and not one.draws_proposals:
        for step, entire in zip(together, one.entire):
            assert close(step.losses, entire.losses)
            assert close({name: step.gradients[name] for name in entire.gradients}, entire.gradients)
