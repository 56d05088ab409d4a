"""Weights laid out beforehand: the same results, also for other sizes, and as they were when they are moved."""
import pytest
import torch
from torch import nn

from mmfeatdistill.teacher.packed_convolutions import PackedConvolutions, can_pack
from tests.helpers.models import build, segmenter

pytestmark = pytest.mark.skipif(not can_pack(), reason='this PyTorch has no operators for packed weights')


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 2, 2, groups=4), nn.ReLU(),
                         nn.Conv2d(16, 8, 1, bias=False)).eval().requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize('shape', [(4, 3, 32, 32), (1, 3, 32, 32), (4, 3, 40, 24), (0, 3, 32, 32)])
def test_results_stay_for_the_size_packed_for_and_for_others(shape):
    plain, packed = net(), net()
    PackedConvolutions(packed, lambda: packed(torch.zeros(4, 3, 32, 32)), 4, 4)
    images = torch.randn(shape)
    torch.testing.assert_close(packed(images), plain(images), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_half_precision_and_autocast_find_the_weights_as_they_were():
    plain, packed = net(), net()
    PackedConvolutions(packed, lambda: packed(torch.zeros(1, 3, 32, 32)))
    images = torch.randn(1, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(packed(images), plain(images))


@torch.no_grad()
def test_unpacking_gives_the_same_bits():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    packed = PackedConvolutions(model, lambda: model(torch.zeros(4, 3, 32, 32)))
    assert len(packed) == 3 and '0.weight' not in model.state_dict()
    packed.unpack()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert packed.pack() and '0.weight' not in model.state_dict()


@torch.no_grad()
def test_what_runs_at_several_sizes_or_shares_its_weight_is_left_alone():
    model = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]).requires_grad_(False)
    model[2].weight = model[1].weight
    images = torch.zeros(1, 3, 8, 8)

    def run():
        model[0](model[0](images)[..., ::2])
        model[1](images), model[2](images)

    assert len(PackedConvolutions(model, run)) == 0


@torch.no_grad()
def test_a_dilated_segmenter():
    model = build(segmenter()).eval().requires_grad_(False)
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)
    assert len(PackedConvolutions(model, lambda: model(images), 2, 2)) > 20
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
