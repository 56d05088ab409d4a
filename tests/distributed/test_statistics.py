"""What two processes find on training images, each on its own: the same, and what one finds on all of them."""
import pytest
import torch

from tests.distributed.trainings import OBJECTIVES, resumed_once


@pytest.fixture(scope='module')
def two(pair):
    return pair.results('training')


@pytest.fixture
def alone(in_digits, teacher_weights, tmp_path):
    return resumed_once(in_digits, teacher_weights, tmp_path)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_hashes_are_drawn_alike_whatever_the_seed_of_a_process(two):
    weights = [{name: value for name, value in found['built'].items() if name.endswith('hashings.0.weight')}
               for found in two]
    assert len(weights[0]) == 3 and equal(*weights)
    assert not any(torch.equal(*states) for states in zip(*(found['states'] for found in two))), \
        'proposals and masks are drawn by each process for itself'


def test_offsets_margins_and_scales_are_those_of_one_process(two, alone):
    assert equal(two[0]['shown'], two[1]['shown'])
    for name, value in alone['shown'].items():
        assert torch.allclose(two[0]['shown'][name].double(), value.double(), rtol=1e-4, atol=1e-6), name
    placed = [value for name, value in alone['shown'].items() if name.endswith(('bias', '0.value', '0.scale'))]
    assert len(placed) == 5 and all((value != 0).any() for value in placed)
    assert not torch.allclose(*(alone['shown'][f'distiller.{list(OBJECTIVES).index(name)}.hashings.0.bias']
                                for name in ('median', 'some')))


def test_a_resumed_training_has_them_in_both_processes(two):
    assert all(equal(found['resumed'], two[0]['shown']) for found in two)


def test_both_processes_train_the_same_weights(two):
    assert equal(two[0]['weights'], two[1]['weights'])
    assert any(name.startswith('module.distiller.') for name in two[0]['weights'])


def test_shares_are_balanced_over_both_processes(two):
    assert two[0]['balances'] == two[1]['balances']
    assert all(len({1.0, first, second}) == 3 for first, second in zip(*two[0]['balances']))
