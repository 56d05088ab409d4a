"""Operators that mmcv has for CUDA only, against loops over single numbers, and gradients against differences."""
import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def bilinear(plane: torch.Tensor, y: float, x: float) -> float:
    """One sample, with mmcv's rule at borders."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.
    y, x = min(max(y, 0.), height - 1.), min(max(x, 0.), width - 1.)
    rows, columns = ((1 - (torch.arange(size).double() - at).abs()).clamp(min=0)
                     for size, at in ((height, y), (width, x)))
    return float(rows @ plane.detach() @ columns)


def test_roi_pool(stand_ins):
    from mmcv.ops import roi_pool
    features = normal(2, 2, 7, 9)
    rois = torch.tensor([[0, 0, 0, 20, 16], [1, 5.3, 3.1, 30, 9], [1, 8, 8, 8, 8], [0, -9, -9, -5, -5],
                         [0, 30, 20, 60, 60], [1, 9, 9, 5, 5]], dtype=torch.float64)
    scale, size = 0.25, (3, 2)
    pooled = roi_pool(features.requires_grad_(), rois, size, scale)
    for n, (index, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top, right, bottom = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        for c, i, j in itertools.product(range(2), range(size[0]), range(size[1])):
            rows = range(max(math.floor(top + i * (bottom - top) / size[0]), 0),
                         min(math.ceil(top + (i + 1) * (bottom - top) / size[0]), 7))
            columns = range(max(math.floor(left + j * (right - left) / size[1]), 0),
                            min(math.ceil(left + (j + 1) * (right - left) / size[1]), 9))
            values = [float(features[int(index), c, y, x]) for y in rows for x in columns]
            has_size = right > left and bottom > top
            assert pooled[n, c, i, j] == (max(values) if values and has_size else 0.)
    assert gradcheck(lambda t: roi_pool(t, rois, size, scale), features)
    assert roi_pool(features, torch.zeros(0, 5).double(), size, scale).shape == (0, 2, 3, 2)


def test_border_align(stand_ins):
    from mmcv.ops import border_align
    features, steps = normal(2, 8, 6, 5), 4
    corner = torch.rand(2, 3, 2, dtype=torch.float64) * 4 - 1
    boxes = torch.cat([corner, corner + torch.rand(2, 3, 2).double() * 4], 2)
    found = border_align(features.requires_grad_(), boxes, steps)
    for b, c, k in itertools.product(range(2), range(2), range(3)):
        x1, y1, x2, y2 = boxes[b, k].tolist()
        walks = [(x1, y1, x2 - x1, 0), (x1, y1, 0, y2 - y1), (x2, y2, x1 - x2, 0), (x2, y2, 0, y1 - y2)]
        for border, (x, y, right, down) in enumerate(walks):
            plane = features[b, 2 * border + c]
            best = max(bilinear(plane, y + down * i / steps, x + right * i / steps) for i in range(steps + 1))
            assert found[b, c, k, border].item() == pytest.approx(best, abs=1e-12)
    assert gradcheck(lambda t: border_align(t, boxes, steps), features)


@pytest.mark.parametrize('ratio', [0, 2])
def test_deform_roi_pool(stand_ins, ratio):
    from mmcv.ops import deform_roi_pool
    features, offset = normal(2, 2, 6, 7), normal(3, 2, 2, 3)
    rois = torch.tensor([[0, 1, 1, 20, 16], [1, 5.3, 3.1, 24, 9], [1, 2, 9, 9, 21]], dtype=torch.float64)
    scale, size, gamma = 0.25, (2, 3), 0.1
    found = deform_roi_pool(features, rois, offset, size, scale, ratio, gamma)
    for n, (index, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (side * scale - 0.5 for side in box)
        rows, columns = ratio or math.ceil((y2 - y1) / 2), ratio or math.ceil((x2 - x1) / 3)
        for c, i, j in itertools.product(range(2), range(2), range(3)):
            right, down = (gamma * float(offset[n, axis, i, j]) * (x2 - x1, y2 - y1)[axis] for axis in (0, 1))
            samples = [bilinear(features[int(index), c], y1 + down + (y2 - y1) / 2 * (i + (a + 0.5) / rows),
                                x1 + right + (x2 - x1) / 3 * (j + (b + 0.5) / columns))
                       for a, b in itertools.product(range(rows), range(columns))]
            assert found[n, c, i, j].item() == pytest.approx(sum(samples) / len(samples), abs=1e-12)
    inputs = features.requires_grad_(), offset.requires_grad_()
    assert gradcheck(lambda t, o: deform_roi_pool(t, rois, o, size, scale, ratio, gamma), inputs)
    plain = deform_roi_pool(features, rois, None, size, scale, ratio, gamma)
    assert torch.equal(plain, deform_roi_pool(features, rois, torch.zeros_like(offset), size, scale, ratio, gamma))


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma', [0.5, 2.])
def test_sigmoid_focal_loss(stand_ins, gamma, weighted):
    from mmcv.ops import sigmoid_focal_loss
    logits, target, alpha = 3 * normal(5, 4), torch.tensor([0, 3, 1, 4, 2]), 0.25
    weight = torch.rand(4).double() if weighted else None
    found = sigmoid_focal_loss(logits.requires_grad_(), target, gamma, alpha, weight, 'none')
    for n, c in itertools.product(range(5), range(4)):
        p = 1 / (1 + math.exp(-float(logits[n, c])))
        loss = -alpha * (1 - p)**gamma * math.log(p) if target[n] == c else (
            -(1 - alpha) * p**gamma * math.log(1 - p))
        factor = float(weight[target[n]]) if weighted and target[n] < 4 else 1.
        assert found[n, c].item() == pytest.approx(factor * loss, rel=1e-9)
    for reduction in ('mean', 'sum'):
        assert gradcheck(lambda t, r=reduction: sigmoid_focal_loss(t, target, gamma, alpha, weight, r), logits)


def test_sigmoid_focal_loss_of_sure_logits(stand_ins):
    from mmcv.ops import sigmoid_focal_loss
    logits = torch.tensor([[200., -200.], [-200., 200.]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2., 0.25, None, 'sum')
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    # From mmcv's own test of this operator.
    logits = torch.tensor([[1., 0.], [0., 1.]])
    assert sigmoid_focal_loss(logits, torch.tensor([0, 1]), 2., 0.25).item() == pytest.approx(0.13562961, rel=1e-6)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma', [0.5, 1., 2.])
def test_softmax_focal_loss(stand_ins, gamma, weighted):
    from mmcv.ops import softmax_focal_loss
    logits, target, alpha = 2 * normal(4, 3), torch.tensor([0, 2, 1, 1]), 0.25
    weight = torch.rand(3).double() if weighted else None
    found = softmax_focal_loss(logits.requires_grad_(), target, gamma, alpha, weight, 'none')
    for n in range(4):
        p = math.exp(logits[n, target[n]]) / sum(math.exp(value) for value in logits[n].tolist())
        factor = float(weight[target[n]]) if weighted else 1.
        assert found[n].item() == pytest.approx(-factor * alpha * (1 - p)**gamma * math.log(p), rel=1e-9)
    assert gradcheck(lambda t: softmax_focal_loss(t, target, gamma, alpha, weight, 'mean'), logits)


def test_softmax_focal_loss_ignores_negative_targets(stand_ins):
    from mmcv.ops import softmax_focal_loss
    logits = normal(2, 3).requires_grad_()
    softmax_focal_loss(logits, torch.tensor([-1, 1]), 2., 0.25).backward()
    assert not logits.grad[0].any() and logits.grad[1].any()


@pytest.mark.parametrize('padding', [0, 1, 2])
def test_masked_conv(stand_ins, padding):
    from mmcv.ops import MaskedConv2d
    layer = MaskedConv2d(3, 4, (3, 2), padding=padding)
    features = torch.randn(1, 3, 6, 7)
    output = F.conv2d(features, layer.weight, layer.bias, padding=padding)
    mask = torch.zeros(1, 6, 7)
    mask[0, [0, 2, 3], [0, 4, 5]] = 1
    found = layer(features, mask)
    kept = F.pad(mask, (0, 4, 0, 4))[:, :output.shape[2], :output.shape[3]]
    assert torch.allclose(found, output * kept, atol=1e-6)
    assert not layer(features, torch.zeros(1, 6, 7)).any()


@pytest.mark.parametrize('groups', [1, 2])
def test_carafe(stand_ins, groups):
    from mmcv.ops import carafe, carafe_naive
    features, masks, kernel, scale = normal(2, 4, 2, 3), normal(2, 9 * groups, 4, 6), 3, 2
    found = carafe(features, masks, kernel, groups, scale)
    for b, c, y, x in itertools.product(range(2), range(4), range(4), range(6)):
        total = 0.
        for i, j in itertools.product(range(kernel), range(kernel)):
            row, column = y // scale + i - 1, x // scale + j - 1
            if 0 <= row < 2 and 0 <= column < 3:
                group = c // (4 // groups)
                total += float(features[b, c, row, column] * masks[b, group * 9 + i * kernel + j, y, x])
        assert found[b, c, y, x].item() == pytest.approx(total, abs=1e-12)
    assert torch.equal(carafe_naive(features, masks, kernel, groups, scale), found)
    inputs = features.requires_grad_(), masks.requires_grad_()
    assert gradcheck(lambda t, m: carafe(t, m, kernel, groups, scale), inputs)


def test_deformable_attention(stand_ins):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
    shapes = torch.tensor([[4, 5], [2, 3]])
    value, locations = normal(2, 26, 3, 4), torch.rand(2, 6, 3, 2, 4, 2).double() * 1.6 - 0.3
    weights = normal(2, 6, 3, 2, 4).flatten(3).softmax(-1).view(2, 6, 3, 2, 4)
    start = torch.tensor([0, 20])
    inputs = value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()
    apply = MultiScaleDeformableAttnFunction.apply
    found = apply(value, shapes, start, locations, weights, 64)
    assert torch.allclose(found, multi_scale_deformable_attn_pytorch(value, shapes, locations, weights), atol=1e-12)
    assert gradcheck(lambda v, place, w: apply(v, shapes, start, place, w, 64), inputs)


def test_points_in_polygons(stand_ins):
    from mmcv.ops import points_in_polygons
    points = torch.tensor([[1., 1.], [3., 1.], [-1., 1.], [0.1, 3.5], [1., 2.5]])
    polygons = torch.tensor([[0., 0., 2., 0., 2., 4., 0., 2.], [-2., 0., 0., 2., -2., 4., -4., 2.]])
    inside = [[1, 0], [0, 0], [0, 0], [0, 0], [1, 0]]
    assert points_in_polygons(points, polygons).tolist() == inside
    assert points_in_polygons(torch.tensor([[-2., 2.1]]), polygons).tolist() == [[0., 1.]]


def test_chamfer_distance(stand_ins):
    from mmcv.ops import chamfer_distance
    points, others = normal(2, 5, 2), normal(2, 7, 2)
    first, second, index, other_index = chamfer_distance(points.requires_grad_(), others.requires_grad_())
    for b, n in itertools.product(range(2), range(5)):
        distances = [float(((points[b, n] - other)**2).sum()) for other in others[b]]
        assert first[b, n].item() == pytest.approx(min(distances))
        assert distances[index[b, n]] == min(distances)
    assert second.shape == other_index.shape == (2, 7)
    assert gradcheck(lambda a, b: chamfer_distance(a, b)[:2], (points, others))


def test_fused_bias_leaky_relu(stand_ins):
    from mmcv.ops.fused_bias_leakyrelu import FusedBiasLeakyReLUFunction
    features, bias = normal(2, 3, 4), normal(3)
    found = FusedBiasLeakyReLUFunction.apply(features.requires_grad_(), bias.requires_grad_(), 0.2, 2**0.5)
    assert torch.allclose(found, F.leaky_relu(features + bias[:, None], 0.2) * 2**0.5)
    assert gradcheck(lambda t, b: FusedBiasLeakyReLUFunction.apply(t, b, 0.2, 2**0.5), (features, bias))


def test_differentiable_rotated_iou(stand_ins):
    from mmcv.ops import box_iou_rotated, diff_iou_rotated_2d
    boxes = torch.cat([torch.rand(1, 40, 2) * 6, 1 + torch.rand(1, 40, 2) * 6, torch.rand(1, 40, 1) * 6], 2)
    others = torch.cat([torch.rand(1, 40, 2) * 6, 1 + torch.rand(1, 40, 2) * 6, torch.rand(1, 40, 1) * 6], 2)
    # The same, one within the other, a corner on an edge, and far apart.
    others[0, :4] = boxes[0, :4]
    others[0, 1, 2:4] *= 0.5
    boxes[0, 2], others[0, 2] = torch.tensor([[1., 1., 2., 2., 0.], [2., 2., 2., 2., 0.]])
    others[0, 3, :2] += 100
    found = diff_iou_rotated_2d(boxes.requires_grad_(), others)
    assert torch.allclose(found, box_iou_rotated(boxes[0], others[0], aligned=True), atol=1e-4)
    found.sum().backward()
    assert boxes.grad.isfinite().all() and boxes.grad.any()


@pytest.mark.parametrize('kind', ['deform', 'modulated'])
def test_gradients_of_deformable_convolutions(stand_ins, kind):
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d
    features, weight = normal(1, 4, 4, 5), normal(2, 2, 2, 2)
    # Not near whole pixels, where the gradient jumps.
    offset, mask = torch.rand(1, 16, 3, 4).double() * 0.8 + 0.1, torch.rand(1, 8, 3, 4).double()
    inputs = [tensor.requires_grad_() for tensor in (features, offset, mask, weight, normal(2))]
    if kind == 'deform':
        del inputs[2], inputs[-1]
    function = deform_conv2d if kind == 'deform' else modulated_deform_conv2d
    assert gradcheck(lambda *t: function(*t, 1, 0, 1, 2, 2), inputs)


def test_offsets_of_a_larger_map_are_read_as_compiled_operators_read_them(stand_ins):
    """As mmdet's DyHead gives them for the level above: the first values, as if they lay in a map of the output's size.

    With compiled operators of mmcv 2.3.6 both calls gave the same on 2026-11-30, gradients too.
    """
    from mmcv.ops import modulated_deform_conv2d
    features, weight = normal(2, 3, 4, 5), normal(6, 3, 3, 3)
    large = [tensor.requires_grad_() for tensor in (normal(2, 18, 8, 10), torch.rand(2, 9, 8, 10).double())]
    small = [tensor.detach().flatten(1)[:, :tensor.shape[1] * 20].reshape(2, -1, 4, 5).requires_grad_()
             for tensor in large]
    given, wanted = (modulated_deform_conv2d(features, *taps, weight, None, 1, 1, 1, 1, 1) for taps in (large, small))
    assert torch.equal(given, wanted)
    (given ** 2).sum().backward()
    (wanted ** 2).sum().backward()
    for whole, part in zip(large, small):
        values = part.numel() // 2
        assert torch.equal(whole.grad.flatten(1)[:, :values], part.grad.flatten(1))
        assert not whole.grad.flatten(1)[:, values:].any()


def test_gradients_of_aligned_regions(stand_ins):
    from mmcv.ops import roi_align, roi_align_rotated, rotated_feature_align
    features = normal(2, 1, 5, 6).requires_grad_()
    rois = torch.tensor([[0, 0.3, 1.1, 4, 4.2], [1, -1, 2, 5.5, 3]], dtype=torch.float64)
    for mode, ratio in itertools.product(('avg', 'max'), (0, 2)):
        assert gradcheck(lambda t, m=mode, r=ratio: roi_align(t, rois, (2, 3), 1., r, m, True), features)
    rotated = torch.cat([rois, torch.tensor([[0.3], [2.]]).double()], 1)
    assert gradcheck(lambda t: roi_align_rotated(t, rotated, (2, 3), 1., 0, True, True), features)
    boxes = torch.rand(2, 5, 6, 5).double() * 5
    assert gradcheck(lambda t: rotated_feature_align(t, boxes, 1., 5), features)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_low_precision(stand_ins, dtype):
    """Computed in single precision, and given back in the precision of what comes in."""
    from mmcv.ops import modulated_deform_conv2d, nms, roi_align, roi_align_rotated, sigmoid_focal_loss
    features = torch.randn(1, 2, 5, 6).to(dtype)
    rois = torch.tensor([[0, 0., 1., 4., 4.]], dtype=dtype)
    rotated = torch.tensor([[0, 2., 2., 4., 3., 0.5]], dtype=dtype)
    offset, mask = torch.randn(1, 18, 5, 6).to(dtype), torch.rand(1, 9, 5, 6).to(dtype)
    weight = torch.randn(3, 2, 3, 3).to(dtype)
    functions = dict(
        roi_align=(lambda t: roi_align(t, rois.to(t.dtype), (2, 2), 1., 2, 'avg', True)),
        roi_align_max=(lambda t: roi_align(t, rois.to(t.dtype), (2, 2), 1., 2, 'max', True)),
        roi_align_rotated=(lambda t: roi_align_rotated(t, rotated.to(t.dtype), (2, 2), 1., 2, True)),
        modulated_deform_conv=(lambda t: modulated_deform_conv2d(
            t, *(part.to(t.dtype) for part in (offset, mask, weight)), None, 1, 1, 1, 1, 1)),
        sigmoid_focal_loss=(lambda t: sigmoid_focal_loss(t[0, 0], torch.arange(5), 2., 0.25, None, 'sum')))
    for name, function in functions.items():
        low, exact = features.clone().requires_grad_(), features.float().requires_grad_()
        value, expected = function(low), function(exact)
        assert value.dtype == dtype, name
        value.sum().backward()
        expected.sum().backward()
        assert low.grad.dtype == dtype, name
        for found, right in [(value, expected), (low.grad, exact.grad)]:
            scale = right.abs().max()
            assert (found.float() - right).abs().max() <= 2 * torch.finfo(dtype).eps * scale, name
    boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.], [8., 8., 9., 9.]], dtype=dtype)
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1], dtype=dtype), 0.5)[1].tolist() == [1, 2]


def test_labels_keep_rotated_boxes_apart(stand_ins):
    from mmcv.ops import nms_quadri, nms_rotated
    boxes, scores = torch.tensor([[5., 5., 4., 4., 0.3]]).repeat(3, 1), torch.tensor([0.5, 0.9, 0.7])
    labels = torch.tensor([0., 1., 1.])
    assert nms_rotated(boxes, scores, 0.5)[1].tolist() == [1]
    assert nms_rotated(boxes, scores, 0.5, labels)[1].tolist() == [1, 0]
    quads = torch.tensor([[0., 0., 4., 0., 4., 4., 0., 4.]]).repeat(3, 1)
    assert nms_quadri(quads, scores, 0.5)[1].tolist() == [1]
    assert nms_quadri(quads, scores, 0.5, labels)[1].tolist() == [1, 0]


def test_overlap_of_quadrilaterals_that_are_no_rectangles(stand_ins):
    from mmcv.ops import box_iou_quadri
    trapezoid = torch.tensor([[0., 0., 4., 0., 3., 2., 1., 2.]])
    half = torch.tensor([[0., 0., 2., 0., 2., 2., 1., 2.]])
    assert box_iou_quadri(trapezoid, half).item() == pytest.approx(0.5)
    assert box_iou_quadri(trapezoid, trapezoid.view(4, 2).flip(0).view(1, 8)).item() == pytest.approx(1.)


@pytest.mark.parametrize('seed', range(5))
def test_overlaps_of_rotated_boxes_by_counting(stand_ins, seed):
    """The share of a fine grid that lies in both boxes."""
    from mmcv.ops import box_iou_rotated
    torch.manual_seed(seed)
    first, second = torch.cat([torch.rand(2, 2) * 3 + 3, 1 + torch.rand(2, 2) * 5, torch.rand(2, 1) * 6], 1)
    axis = torch.linspace(-2, 12, 1401)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing='xy'), -1)

    def inside(box: torch.Tensor) -> torch.Tensor:
        cos, sin = box[4].cos(), box[4].sin()
        turned = (grid - box[:2]) @ torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
        return (turned.abs() <= box[2:4] / 2).all(-1)

    both, either = inside(first) & inside(second), inside(first) | inside(second)
    found = box_iou_rotated(first[None], second[None])
    assert found.item() == pytest.approx(both.sum().item() / either.sum().item(), abs=3e-3)


def test_what_is_not_finite_reads_nothing(stand_ins):
    """As after a training has diverged; torchvision itself reads out of bounds there."""
    from mmcv.ops import deform_conv2d, roi_align, roi_align_rotated
    features, weight, offset = normal(1, 2, 5, 6), normal(3, 2, 1, 1), torch.zeros(1, 2, 5, 6).double()
    offset[0, 0, 1, 1], offset[0, 1, 2, 2], offset[0, 1, 3, 3] = math.nan, math.nan, math.inf
    inputs = [tensor.requires_grad_() for tensor in (features, offset, weight)]
    output = deform_conv2d(*inputs)
    read = torch.ones(5, 6).double()
    read[[1, 2, 3], [1, 2, 3]] = 0
    assert torch.allclose(output, F.conv2d(features, weight) * read)
    output.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    rois = torch.tensor([[0., 1., 1., 3., 3.]]).double().repeat(4, 1)
    rois[1, 1], rois[2, 3], rois[3, 0] = math.nan, math.inf, math.nan
    for mode, ratio in itertools.product(('avg', 'max'), (0, 2)):
        pooled = roi_align(features, rois, 2, 1., ratio, mode)
        pooled.sum().backward()
        assert pooled[0].all() and not pooled[1:].any()
    assert features.grad.isfinite().all()
    rotated = torch.cat([rois, torch.zeros(4, 1).double()], 1)
    assert not roi_align_rotated(features, rotated, 2, 1., 0)[1:].any()


def test_a_box_turned_by_a_half_is_the_same(stand_ins):
    """Of the first, mmcv's compiled operator gives 0.59."""
    from mmcv.ops import box_iou_rotated
    boxes = torch.tensor([[9.3952, 10.7976, 21.2094, 3.5606, 2.9933], [0., 0., 2., 3., 0.], [1e4, 1e4, 50., 9., 0.7]])
    turned = boxes + torch.tensor([0., 0., 0., 0., math.pi])
    assert box_iou_rotated(boxes, turned, aligned=True).tolist() == pytest.approx([1., 1., 1.], abs=1e-5)
