"""KD-DETR: on small detectors of mmdet with random weights."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.decoder_queries import decode, memory_of, start_of, with_general_points
from mmfeatdistill.taps.reader import TappedPass
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.helpers.models import count_calls, detection_batch, detector, distiller, losses_of, stock, teacher
from tests.helpers.runs import CONFIGS, detecting_digits

_CONFIGS = dict(
    plain='mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    refine='mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py',
    twostage='mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
    dino='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')


def detr(name, dims=32, layers=2, classes=10, queries=12):
    dims = 256 if name == 'twostage' else dims  # the embedding of its proposals has this width whatever the model has
    model = stock(_CONFIGS[name])
    model.num_queries = queries
    model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64], out_channels=dims, norm_cfg=dict(type='GN', num_groups=4))
    model.positional_encoding.num_feats = dims // 2
    model.bbox_head.update(num_classes=classes)
    for coder in (model.encoder, model.decoder):
        coder.num_layers = layers
        for name_of_part, part in coder.layer_cfg.items():
            part.update(embed_dims=dims, **(dict(num_heads=4) if name_of_part != 'ffn_cfg' else dict(
                feedforward_channels=dims, ffn_drop=0.0)))
            if name_of_part != 'ffn_cfg':
                part.dropout = 0.0
    model.bbox_head.embed_dims = dims
    return model


def shared(name, student=None, mentor=None, **options):
    model = distiller(student or detr(name), teacher(mentor or detr(name)),
                      dict(queries=dict(type='SharedQueries', **options)))
    model.init_weights()
    return model.train()


def added(losses):
    return {key.partition('.')[2]: value for key, value in losses.items() if key.startswith('queries.')}


def passes(model, batch, training=False):
    """The teacher's own output, and its memory."""
    mentor = model.teachers[0].model
    data = model.data_preprocessor(copy.deepcopy(batch), training=training)
    with torch.no_grad():
        encoded, levels = [], mentor.extract_feat(data['inputs'])
        handle = mentor.encoder.register_forward_hook(lambda *args: encoded.append(args[2]))
        output = mentor(**data, mode='tensor')
        handle.remove()
    return output, memory_of(mentor, levels, encoded[0], data['data_samples'])


@pytest.mark.parametrize('name', _CONFIGS)
def test_the_teacher_s_own_start_gives_its_own_output(name):
    """Bit for bit, with images of two sizes, of which one is padded."""
    model = shared(name)
    output, memory = passes(model, detection_batch((64, 64), (48, 64)))
    assert memory.arguments['memory_mask'] is not None
    mentor = model.teachers[0].model
    with torch.no_grad():
        found = decode(mentor, memory, start_of(mentor, memory))
    assert all(torch.equal(own, of_pass) for own, of_pass in zip(found, output))


@pytest.mark.parametrize('name', _CONFIGS)
def test_gradient_reaches_the_student_and_no_query(name):
    model = shared(name, general=5)
    losses = added(losses_of(model, detection_batch()))
    assert sorted(losses) == ['loss_box', 'loss_class', 'loss_overlap']
    assert all(value.isfinite() and value > 0 for value in losses.values())
    sum(losses.values()).backward()
    for part in (model.backbone.layer4, model.neck, model.encoder, model.decoder, model.bbox_head):
        assert any(value.grad is not None and value.grad.any() for value in part.parameters())
    if name != 'twostage':
        assert model.query_embedding.weight.grad is None
    assert all(value.grad is None for value in model.teachers[0].model.parameters())


@pytest.mark.parametrize('name, layers', [('dino', 'all'), ('twostage', 'last'), ('plain', 'last')])
def test_a_copy_has_nothing_to_learn(name, layers):
    """In training mode, as nothing is dropped here."""
    model = shared(name, general=5, layers=layers)
    model.teachers[0].model.load_state_dict(
        {key: value for key, value in model.state_dict().items() if not key.startswith('distiller.')})
    losses = added(losses_of(model, detection_batch((64, 64), (48, 64))))
    assert all(value.abs() < 1e-5 for value in losses.values())


def test_the_loss_is_the_sum_of_its_parts():
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
    model = shared('dino', general=4, class_weight=3.0, box_weight=0.5, overlap_weight=0.25)
    MessageHub.get_current_instance().update_info('iter', 7)
    seen = []
    model.objectives['queries'].register_forward_pre_hook(lambda _, args: seen.append(args))
    losses = added(losses_of(model, detection_batch()))
    (own, (theirs,)), = seen
    memories = [memory_of(reading.model, reading['neck'], reading['encoder'][0], reading.data_samples)
                for reading in (own, theirs)]
    start = with_general_points(start_of(theirs.model, memories[1]), 4, torch.Generator().manual_seed(7))
    assert start['query'].shape == (2, 16, 32) and len(start['reference_points'][0].unique(dim=0)) > 4
    (logits, boxes), (wanted, targets) = ((part[-1].flatten(0, 1) for part in decode(reading.model, memory, start))
                                          for reading, memory in zip((own, theirs), memories))
    weights = wanted.sigmoid().amax(1)
    target = wanted.sigmoid()
    entropy = F.binary_cross_entropy(target, target, reduction='none')
    classes = (F.binary_cross_entropy_with_logits(logits, target, reduction='none') - entropy).sum(1)
    overlap = 1 - bbox_overlaps(*map(bbox_cxcywh_to_xyxy, (boxes, targets)), mode='giou', is_aligned=True)
    terms = dict(loss_class=3 * classes, loss_box=0.5 * (boxes - targets).abs().sum(1), loss_overlap=0.25 * overlap)
    torch.testing.assert_close(losses, {key: (weights * value).sum() / weights.sum() for key, value in terms.items()})


def test_points_are_those_of_the_iteration():
    """The same when a training is resumed, and others in the next iteration; nothing else is drawn otherwise."""
    model = shared('dino', general=6).eval()
    batch = detection_batch((64, 64))
    found = []
    for iteration in (3, 4, 3):
        MessageHub.get_current_instance().update_info('iter', iteration)
        state = torch.get_rng_state()
        with torch.no_grad():
            own, theirs = _readings(model, batch)
            found.append(model.objectives['queries'](own, [theirs])['loss_class'])
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[2] != found[1]


def _readings(model, batch):
    data = model.data_preprocessor(copy.deepcopy(batch), training=False)
    yield TappedPass(model.reader.read(lambda: model.student(**data, mode='tensor'))[0], model.reader, data['inputs'],
                     data['data_samples'])
    yield model.teachers[0](data['inputs'], data['data_samples'])


def test_what_is_run():
    """The teacher's backbone and encoder once, its decoder once and for this alone; the student's twice."""
    model = shared('dino')
    mentor = model.teachers[0].model
    calls = [count_calls(module) for module in (
        mentor.backbone.conv1, mentor.encoder.layers[0], mentor.decoder, model.student.encoder, model.student.decoder)]
    losses_of(model, detection_batch())
    assert [len(of_module) for of_module in calls] == [1, 1, 1, 1, 2]


def test_an_image_without_boxes_alone():
    batch = detection_batch((64, 64))
    batch['data_samples'][0].gt_instances = batch['data_samples'][0].gt_instances[:0]
    model = shared('dino', general=0)
    losses = added(losses_of(model, batch))
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize('options, words', [
    (dict(student=detector()), "queries.*no module 'encoder'"),
    (dict(mentor=detr('plain')), r"of the student \(DINO\) consists of \{'query': 32, 'reference_points': None\}"),
    (dict(mentor=detr('dino', dims=64)), r"one of the teacher \(DINO\) of \{'query': 64"),
    (dict(mentor=detr('dino', classes=12)), "the student's head has 10 classes and the teacher's 12"),
    (dict(mentor=detr('dino', layers=3), layers='all'), "decoder has 2 layers and the teacher's 3; layers='last'"),
    (dict(layers='first'), "queries: layers: expected 'last' or 'all', got 'first'"),
    (dict(general=-1), 'queries: general: expected a number of queries, got -1')])
def test_what_cannot_work_is_refused_when_it_is_built(options, words):
    with pytest.raises(ConfigError, match=words):
        shared('dino', **options)


def test_other_numbers_of_queries_and_layers():
    """Also more queries than the image of the dry run has positions, as DINO's 900."""
    model = shared('dino', mentor=detr('dino', layers=3, queries=200))
    assert added(losses_of(model, detection_batch((128, 128))))['loss_class'] > 0
    with pytest.raises(ConfigError, match='queries: DINO picks 200 queries among the positions .* and has 85 here'):
        losses_of(model, detection_batch((64, 64)))


def test_a_resumed_training_is_the_same_bit_for_bit(in_digits, tmp_path):
    model = Config.fromfile(CONFIGS.parent / 'tests' / 'distributed' / 'shared_queries.py').model
    straight, resumed = straight_and_resumed(lambda name: detecting_digits(tmp_path / name, model), crash_at=3)
    assert straight.iter == resumed.iter == 4
    assert all(value.isfinite().all() for value in straight.model.parameters())
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
