import pytest
import torch
import torch.nn.functional as F

from mmfeatdistill.features import FeatureShape, as_map, resize_to, shape_of


def test_maps_stay_as_they_are():
    feature = torch.randn(2, 8, 5, 7)
    assert as_map(feature) is feature
    assert shape_of(feature) == FeatureShape(channels=8, height=5, width=7)


def test_vectors_become_maps_of_one_position():
    feature = torch.randn(2, 8)
    assert torch.equal(as_map(feature)[:, :, 0, 0], feature)
    assert shape_of(feature) == (8, 1, 1)


def test_tokens_become_the_map_that_they_were_made_of():
    patches = torch.randn(2, 8, 6, 6)
    tokens = patches.flatten(2).transpose(1, 2)  # as patch embeddings do
    assert torch.equal(as_map(tokens), patches)


@pytest.mark.parametrize('shape, words', [
    ((2, 50, 8), ['50 tokens are not a square map', '(2, 50, 8)', 'class tokens', "out_type='featmap'"]),
    ((2, 24, 8), ['24 tokens are not a square map']),
    ((8,), ['(N, C), (N, L, C) or (N, C, H, W), got (8,)']),
    ((1, 2, 3, 4, 5), ['got (1, 2, 3, 4, 5)']), ((), ['got ()'])])
def test_other_shapes(shape, words):
    for function in (as_map, shape_of):
        with pytest.raises(ValueError) as caught:
            function(torch.zeros(shape))
        assert all(word in str(caught.value) for word in words), caught.value


def test_resizing():
    feature = torch.randn(2, 3, 8, 12)
    assert resize_to(feature, (8, 12)) is feature
    assert resize_to(feature, feature.shape[-2:]) is feature
    for size in ((4, 6), (16, 24), (5, 7), (1, 1)):
        expected = F.interpolate(feature, size=size, mode='bilinear', align_corners=False)
        assert torch.equal(resize_to(feature, size), expected)
    torch.testing.assert_close(resize_to(torch.full((1, 1, 3, 3), 7.), (5, 9)), torch.full((1, 1, 5, 9), 7.))


def test_gradients_pass_all_of_it():
    tokens = torch.randn(1, 16, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize_to(as_map(x), (3, 5)), tokens)
