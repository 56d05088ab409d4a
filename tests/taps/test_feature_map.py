import pytest
import torch
import torch.nn.functional as F

from mmfeatdistill.taps.feature_map import FeatureShape, as_map, same_size, shape_of


def test_maps_stay_as_they_are():
    feature = torch.randn(2, 8, 5, 7)
    assert as_map(feature) is feature
    assert shape_of(feature) == FeatureShape(channels=8, height=5, width=7)


def test_vectors_become_maps_of_one_position():
    feature = torch.randn(2, 8)
    assert torch.equal(as_map(feature)[:, :, 0, 0], feature)
    assert shape_of(feature) == (8, 1, 1)


def test_tokens_meet_the_positions_that_they_were_made_of():
    patches = torch.randn(2, 8, 4, 9)
    tokens = patches.flatten(2).transpose(1, 2)  # as patch embeddings do
    for first, second in ((tokens, patches), (patches, tokens), (tokens, tokens)):
        student, teacher = same_size(as_map(first), as_map(second), has_tokens=True)
        assert torch.equal(student, teacher) and student.shape == (2, 8, 36, 1)


def test_tokens_are_not_resized():
    with pytest.raises(ValueError, match="student has 16 and the teacher 17 positions.*out_type='featmap'"):
        same_size(torch.zeros(1, 8, 16, 1), torch.zeros(1, 8, 17, 1), has_tokens=True)


@pytest.mark.parametrize('shape, words', [
    ((8,), ['(N, C), (N, L, C) or (N, C, H, W), got (8,)']),
    ((1, 2, 3, 4, 5), ['got (1, 2, 3, 4, 5)']), ((), ['got ()'])])
def test_other_shapes(shape, words):
    for function in (as_map, shape_of):
        with pytest.raises(ValueError) as caught:
            function(torch.zeros(shape))
        assert all(word in str(caught.value) for word in words), caught.value


def test_resizing():
    feature = torch.randn(2, 3, 8, 12)
    assert same_size(feature, torch.zeros(2, 5, 8, 12))[0] is feature
    for size in ((4, 6), (16, 24), (5, 7), (1, 1)):
        expected = F.interpolate(feature, size=size, mode='bilinear', align_corners=False)
        teacher = torch.zeros(2, 3, *size)
        resized, same = same_size(feature, teacher)
        assert torch.equal(resized, expected) and same is teacher


def test_gradients_pass_all_of_it():
    tokens = torch.randn(1, 16, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: same_size(as_map(x), torch.zeros(1, 2, 4, 4), True)[0], tokens)
