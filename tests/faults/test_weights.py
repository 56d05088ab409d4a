"""Nothing counts as loaded that is not."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from mmfeatdistill.checkpoints.init_cfg import load_init_cfg
from mmfeatdistill.checkpoints.load import load_checkpoint
from mmfeatdistill.checkpoints.load_fit import explain_load
from mmfeatdistill.checkpoints.trained_with import differences, trained_model
from mmfeatdistill.engine.hooks._class_order import check_class_order
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.teacher import Teacher
from tests.faults.conftest import said
from tests.helpers.models import build, classifier, detector, distiller, match, segmenter, teacher, transformer


@pytest.fixture
def preprocessor():
    return build(classifier()).data_preprocessor


def saved(path, state_dict):
    torch.save(state_dict, path)
    return str(path)


def made(model, preprocessor, checkpoint, **options):
    return Teacher(model=model, checkpoint=checkpoint, student_preprocessor=preprocessor, **options)


# --- 'init_cfg' ------------------------------------------------------------------------------


@pytest.mark.parametrize('init_cfg', [None, dict(type='Kaiming', layer='Conv2d'), [dict(type='Constant', val=1.)]])
def test_nothing_names_weights(preprocessor, init_cfg):
    model = classifier()
    model.backbone.init_cfg = init_cfg
    with pytest.raises(ConfigError, match="^model.teacher.checkpoint: is 'init_cfg', but nothing in the model names "
                                          "weights.*Give a path, a URL or 'zoo'"):
        made(model, preprocessor, 'init_cfg')


def test_weights_that_init_cfg_names(preprocessor, tmp_path):
    file = saved(tmp_path / 'a.pth', build(classifier()).state_dict())
    model = classifier()
    model.init_cfg = dict(type='Pretrained', checkpoint=file)
    assert made(model, preprocessor, 'init_cfg').load_report.complete


def test_weights_that_are_drawn_anew_after_they_were_loaded_are_an_error(preprocessor, tmp_path):
    """mmpretrain's ViT draws its position embeddings again where init_cfg is a list."""
    file = saved(tmp_path / 'a.pth', build(transformer()).state_dict())
    named = dict(type='Pretrained', checkpoint=file, prefix='backbone.')
    model = transformer()
    model.backbone.init_cfg = named
    assert made(model, preprocessor, 'init_cfg').load_report.matched
    model.backbone.init_cfg = [named, dict(type='Constant', layer='LayerNorm', val=1.)]
    with pytest.raises(ConfigError, match=r"VisionTransformer has overwritten 'backbone'.pos_embed after init_cfg had"):
        made(model, preprocessor, 'init_cfg')


def test_a_part_without_weights_cannot_be_tapped(tmp_path):
    """Pretrained backbones are usual, and the neck behind them is random."""
    file = saved(tmp_path / 'a.pth', build(detector()).backbone.state_dict())
    model = detector()
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=file)
    taught = dict(model=model, checkpoint='init_cfg')
    distiller(detector(), taught, dict(a=match('backbone')))
    with pytest.raises(ConfigError, match=r"^model.objectives.a.taps: 'neck' is in teacher.neck, of which nothing was "
                                          "loaded.*'neck'. Tap a part that has weights"):
        distiller(detector(), taught, dict(a=match('neck')))
    distiller(detector(), dict(taught, strict=False), dict(a=match('neck')))


@pytest.mark.parametrize('rename', [lambda name: name if 'layer3' not in name else None,
                                    lambda name: f'encoder.{name}'])
def test_weights_that_init_cfg_names_and_that_do_not_fit(preprocessor, tmp_path, rename):
    state_dict = {rename(name): value for name, value in build(classifier()).backbone.state_dict().items()}
    state_dict.pop(None, None)
    model = classifier()
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=saved(tmp_path / 'a.pth', state_dict))
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: .*(fits .backbone. in part only|nothing)'):
        made(model, preprocessor, 'init_cfg')


@pytest.mark.parametrize('width, whole, words', [
    (8, True, "'backbone' fits nothing there: give it prefix='backbone.'"),
    (16, False, r"'backbone' fits nothing there, as shapes differ \(conv1.weight: file \[16, 3, 7, 7\], model \[8, 3")])
def test_weights_that_init_cfg_names_and_that_fit_nothing_are_not_said_to_be_unnamed(
        preprocessor, tmp_path, width, whole, words):
    """A file of the whole detector for its backbone is the usual slip; mmengine then loads nothing, with a warning."""
    network = build(classifier(width))
    model = classifier()
    model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=saved(tmp_path / 'a.pth', (network if whole else network.backbone).state_dict()))
    for strict in (True, False):
        with pytest.raises(ConfigError, match=f'^model.teacher.checkpoint: what init_cfg names for {words}'):
            made(model, preprocessor, 'init_cfg', strict=strict)


def test_a_segmenter_by_its_pretrained_option(tmp_path):
    model = segmenter()
    model.pretrained = saved(tmp_path / 'a.pth', build(segmenter()).backbone.state_dict())
    report = made(model, build(segmenter()).data_preprocessor, 'init_cfg').load_report
    assert {name.partition('.')[0] for name in report.missing} == {'decode_head'}


class Foreign(nn.Module):
    """As a network of timm: it comes with weights, and its init_weights() draws others."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        nn.init.constant_(self.conv.weight, 0.5)

    def init_weights(self):
        nn.init.zeros_(self.conv.weight)


class Wrapper(BaseModule):
    def __init__(self):
        super().__init__()
        self.timm_model = Foreign()


@pytest.mark.parametrize('cfg, kept', [(dict(pretrained=True), True), (dict(checkpoint_path='a.pth'), True),
                                       (dict(pretrained=False), False)])
def test_networks_that_come_with_weights_keep_them(cfg, kept):
    model = Wrapper()
    named = load_init_cfg(model, cfg)
    assert (model.timm_model.conv.weight == (0.5 if kept else 0)).all()
    assert (named.report.matched == 2) == kept and named.unloaded == ([] if kept else ['timm_model'])
    assert not hasattr(model.timm_model, 'is_init')


@pytest.mark.parametrize('name', ['resnet18', 'convnext_atto', 'vit_tiny_patch16_224'])
def test_timm_with_pretrained_weights(monkeypatch, preprocessor, name):
    timm = pytest.importorskip('timm')
    create = timm.create_model
    before = {}

    def create_model(model_name, pretrained=False, **options):
        model = create(model_name, pretrained=False, **options)
        before.update(copy.deepcopy(model.state_dict()))
        return model

    monkeypatch.setattr('timm.models.create_model', create_model)
    built = made(dict(type='mmpretrain.TimmClassifier', model_name=name, pretrained=True), preprocessor, 'init_cfg')
    assert built.load_report.complete and before
    assert all(torch.equal(value, before[key]) for key, value in built.model.model.state_dict().items())


# --- files -----------------------------------------------------------------------------------




OFFSETS = {f'backbone.layer2.0.conv2.conv_offset.{name}': torch.zeros(18) for name in ('weight', 'bias')}


@pytest.mark.parametrize('extra, inside', [
    (OFFSETS, True),
    ({'backbone.layer2.2.conv1.weight': torch.ones(1)}, True),  # a deeper network's
    ({'backbone.layer1.0.se.fc.weight': torch.ones(1)}, True),
    ({'backbone.conv1.lora_A.weight': torch.ones(1)}, True),
    ({'roi_head.bbox_head.shared_fcs.2.weight': torch.ones(1)}, True),
    ({'mask_head.conv.weight': torch.ones(1)}, False),
    ({'roi_head.mask_head.convs.0.conv.weight': torch.ones(1)}, False),
    ({'backbone.fc.weight': torch.ones(1)}, False),
    ({'ema_backbone_conv1_weight': torch.ones(1), 'teacher.backbone.conv1.weight': torch.ones(1)}, False),
    ({'distiller.fpn.connectors.0.weight': torch.ones(1), 'optimizer.step': torch.ones(1)}, False),
    ({'rpn_head.loss_cls.weight': torch.ones(1)}, False),
    ({'backbone.layer1.0.bn1.counter': torch.ones(1, dtype=torch.long)}, False),
    ({'data_preprocessor.mean': torch.ones(3)}, False)], ids=lambda value: next(iter(value), '') if isinstance(
        value, dict) else '')
def test_what_is_left_over(tmp_path, extra, inside):
    model = detector()
    file = saved(tmp_path / 'a.pth', dict(state_dict={**build(model).state_dict(), **extra}))
    preprocessor = build(model).data_preprocessor
    if not inside:
        assert made(model, preprocessor, file).load_report.fits
        return
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: does not fit.* of these inside modules of the '
                                          'network.*computes something else there') as error:
        made(model, preprocessor, file)
    assert ('LoRA' in str(error.value)) == any('lora' in name for name in extra)
    assert made(model, preprocessor, file, strict=False).load_report.inside == tuple(extra)


def test_a_shallower_network_takes_everything_from_the_file_of_a_deeper(tmp_path, preprocessor):
    deep = classifier()
    deep.backbone.depth = 34
    file = saved(tmp_path / 'a.pth', build(deep).state_dict())
    with pytest.raises(ConfigError, match='more blocks. Give the config that it was trained with'):
        made(classifier(), preprocessor, file)


def test_a_network_that_ends_earlier(tmp_path, preprocessor):
    file = saved(tmp_path / 'a.pth', build(classifier()).state_dict())
    model = classifier()
    model.backbone.update(num_stages=3, out_indices=(2,), strides=(1, 2, 2), dilations=(1, 1, 1))
    model['head'] = None
    assert made(model, preprocessor, file).load_report.fits


def test_two_networks_under_two_names(tmp_path):
    weights = build(classifier()).state_dict()
    both = {f'{name}.{key}': value for name in ('architecture', 'teacher') for key, value in weights.items()}
    report = load_checkpoint(build(classifier()), saved(tmp_path / 'a.pth', dict(state_dict=both)))
    assert report.matched == 0
    text = ' '.join(explain_load(report))
    assert "several networks that fit, under 'architecture.', 'teacher.'; choose one" in text


def test_two_networks_under_two_keys(tmp_path):
    weights = build(classifier()).state_dict()
    file = saved(tmp_path / 'a.pth', dict(student=weights, teacher=weights, epoch=3))
    with pytest.raises(ValueError, match=r"holds the weights of 2 networks, as 'student', 'teacher'. Take the one out"):
        load_checkpoint(build(classifier()), file)


@pytest.mark.parametrize('side', [64, 128])
def test_buffers_that_a_network_computes_by_itself_are_not_missing(tmp_path, side):
    """mmpretrain's Swin Transformer V2 drops them from every file that it loads, also of images of another size."""
    def swin(side):
        model = classifier()
        arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], extra_norm_every_n_blocks=0)
        model.backbone = dict(type='SwinTransformerV2', arch=arch, img_size=side, window_size=4)
        model.head.in_channels = 64
        return build(model)
    model = swin(side)
    report = load_checkpoint(model, saved(tmp_path / 'a.pth', dict(state_dict=swin(64).state_dict())))
    assert report.fits, report
    lacking = {name: value for name, value in swin(64).state_dict().items() if not name.endswith('logit_scale')}
    report = load_checkpoint(model, saved(tmp_path / 'b.pth', lacking))
    assert len(report.missing) == 4 and all(name.endswith('logit_scale') for name in report.missing)


def test_the_only_network_under_another_key(tmp_path):
    """As DeepSpeed saves it."""
    file = saved(tmp_path / 'a.pth', dict(module=build(classifier()).state_dict()))
    with pytest.raises(ValueError, match=r"holds the weights under 'module'\. Take the one out"):
        load_checkpoint(build(classifier()), file)


@pytest.mark.parametrize('wrap, place', [
    (lambda plain, averaged: dict(state_dict=plain, state_dict_ema=averaged, version=2), r"\['state_dict_ema'\]"),
    (lambda plain, averaged: dict(model=plain, ema=dict(module=averaged, updates=3)), r"\['ema'\]\['module'\]"),
    (lambda plain, averaged: dict(model=plain, model_ema=dict(
        {f'module.{name}': value for name, value in averaged.items()}, n_averaged=torch.tensor(3))),
     r"\['model_ema'\]")])
def test_averaged_weights_beside_those_under_the_usual_name(tmp_path, wrap, place):
    """As timm, RT-DETR and torchvision save them; what they evaluate is the average."""
    plain, averaged = (build(classifier()).state_dict() for _ in range(2))
    file = saved(tmp_path / 'a.pth', wrap(plain, averaged))
    with pytest.raises(ValueError, match=rf'the weights of the network twice, .* {place}; one of the two .*EMA'):
        load_checkpoint(build(classifier()), file)


def test_mmengine_saves_averages_under_the_usual_name(tmp_path):
    plain, averaged = (build(classifier()).state_dict() for _ in range(2))
    model = build(classifier())
    before = {'steps': torch.tensor(3), **{f'module.{name}': value for name, value in plain.items()}}
    file = saved(tmp_path / 'a.pth', dict(meta=dict(epoch=3), state_dict=averaged, ema_state_dict=before))
    report = load_checkpoint(model, file)
    assert report.fits and torch.equal(model.state_dict()['head.fc.weight'], averaged['head.fc.weight'])


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_wrapped_networks(tmp_path, prefix):
    weights = {f'{prefix}{name}': value for name, value in build(classifier()).state_dict().items()}
    assert load_checkpoint(build(classifier()), saved(tmp_path / 'a.pth', weights)).fits


def test_a_network_with_a_child_of_that_name(tmp_path):
    model = nn.ModuleDict(dict(module=nn.Linear(2, 2), head=nn.Linear(2, 2)))
    assert load_checkpoint(model, saved(tmp_path / 'a.pth', model.state_dict())).fits
    alone = nn.ModuleDict(dict(module=nn.Linear(2, 2)))
    assert load_checkpoint(alone, saved(tmp_path / 'b.pth', alone.state_dict())).fits


@pytest.mark.parametrize('prefix', ['model', 'student', 'ema_model', 'architecture', 'net.backbone_'])
def test_names_that_begin_otherwise_are_said_and_not_half_loaded(tmp_path, preprocessor, prefix):
    weights = {f'{prefix}.{name}': value for name, value in build(classifier()).state_dict().items()}
    with pytest.raises(ConfigError, match=f"without '{prefix}.' in front, 102 of the 102"):
        made(classifier(), preprocessor, saved(tmp_path / 'a.pth', dict(state_dict=weights)))


def test_a_file_that_fits_nothing_is_an_error_without_strict_too(tmp_path, preprocessor):
    file = saved(tmp_path / 'a.pth', {f'student.{name}': v for name, v in build(classifier()).state_dict().items()})
    with pytest.raises(ConfigError, match="0 tensors loaded.*without 'student.' in front") as caught:
        made(classifier(), preprocessor, file, strict=False)
    assert 'set strict=False' not in str(caught.value)


def test_what_is_left_over_where_a_loading_hook_renames(tmp_path):
    """SoftTeacher's hook puts teacher. and student. before the names of a plain detector."""
    inner = detector()
    branches = dict(type='mmdet.MultiBranchDataPreprocessor', data_preprocessor=inner.pop('data_preprocessor'))
    soft = build(dict(type='mmdet.SoftTeacher', detector=inner, data_preprocessor=branches, semi_train_cfg=dict(),
                      semi_test_cfg=dict(predict_on='teacher')))
    weights = build(detector()).state_dict()
    assert load_checkpoint(soft, saved(tmp_path / 'a.pth', weights)).fits
    report = load_checkpoint(soft, saved(tmp_path / 'b.pth', {**weights, **OFFSETS}))
    assert report.complete and len(report.inside) == 4


# --- a distillation as a teacher ---------------------------------------------------------------


def test_a_distillation_stands_for_its_student(tmp_path, preprocessor):
    model = dict(type='mmfeatdistill.FeatureDistiller', student=classifier(), teacher=teacher(classifier(16)),
                 objectives=dict(a=match('backbone')))
    trained = build(model)
    file = saved(tmp_path / 'a.pth', dict(state_dict=trained.state_dict()))
    assert any(name.startswith('distiller.') for name in trained.state_dict())
    Config(dict(default_scope='mmpretrain', model=model)).dump(tmp_path / 'a.py')
    for taught in (Teacher(str(tmp_path / 'a.py'), checkpoint=file, student_preprocessor=preprocessor),
                   made(model, preprocessor, file)):
        assert type(taught.model).__name__ == 'ImageClassifier' and taught.load_report.fits
        assert torch.equal(taught.model.backbone.conv1.weight, trained.student.backbone.conv1.weight)


@pytest.mark.parametrize('left, tap, words', [
    ('neck.downsample_convs.0.conv.weight', 'neck', "'neck.downsample_convs.0.conv.weight' is left over"),
    ('backbone.absolute_pos_embed', 'backbone.layer4', "'backbone.absolute_pos_embed' is left over"),
    ('backbone.fc.weight', 'backbone', None), ('mask_head.convs.0.weight', 'neck', None)])
def test_what_is_left_over_of_what_is_tapped_is_no_fit(tmp_path, left, tap, words):
    mentor = detector(16, 32)
    torch.save({**build(mentor).state_dict(), left: torch.ones(4, 4)}, tmp_path / 'teacher.pth')
    options = dict(model=mentor, checkpoint=str(tmp_path / 'teacher.pth'))
    if words is None:
        distiller(detector(), options, dict(a=match(tap)))
        return
    with pytest.raises(ConfigError, match=words):
        distiller(detector(), options, dict(a=match(tap)))
    distiller(detector(), dict(options, strict=False), dict(a=match(tap)))


@pytest.mark.parametrize('name', ['backbone.layer3.0.conv1.weight', 'backbone.layer3.0.bn1.running_mean'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_the_weights_of_a_training_that_has_diverged_are_refused(preprocessor, tmp_path, value, name):
    weights = build(classifier()).state_dict()
    weights[name].view(-1)[0] = value
    with pytest.raises(ConfigError, match=f"^model.teacher.checkpoint: {name!r} has values that are infinite or NaN.*"
                                          'Give an earlier checkpoint'):
        made(classifier(), preprocessor, saved(tmp_path / 'a.pth', weights))


def test_finite_weights_whose_sum_overflows_are_taken(preprocessor, tmp_path):
    weights = build(classifier()).state_dict()
    weights['backbone.layer3.0.conv1.weight'].fill_(1e38)
    made(classifier(), preprocessor, saved(tmp_path / 'a.pth', weights))


def test_weights_that_lie_in_another_order_are_not_said_to_be_of_other_classes(preprocessor, tmp_path):
    weights = build(classifier()).state_dict()
    weights = {name: value.T.contiguous() if value.dim() == 2 else value for name, value in weights.items()}
    with pytest.raises(ConfigError, match=r'Dimensions come in another order \(head.fc.weight: .*Transpose all'):
        made(classifier(), preprocessor, saved(tmp_path / 'a.pth', weights))


@pytest.mark.parametrize('quantize', [
    lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8).state_dict(),
    lambda model: dict(model.state_dict(), **{'backbone.conv1.weight': torch.quantize_per_tensor(
        model.state_dict()['backbone.conv1.weight'], 0.1, 0, torch.qint8)})], ids=['dynamic', 'static'])
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_a_quantized_network_is_called_so(preprocessor, tmp_path, quantize):
    with pytest.raises(ConfigError, match='holds the weights of a quantized network .* that it was quantized from'):
        made(classifier(), preprocessor, saved(tmp_path / 'a.pth', quantize(build(classifier()).eval())))


# --- what tensors do not show ----------------------------------------------------------------


def said_in(tmp_path, log, trained, model, **meta):
    """What is said when a file that was trained in one network is loaded into another that it fits."""
    file = saved(tmp_path / 'a.pth', dict(
        state_dict=build(trained).state_dict(),
        meta=dict(cfg=Config(dict(model=trained, lr=0.1)).pretty_text, **meta)))
    log.clear()
    made(model, build(model).data_preprocessor, file)
    return [record.getMessage() for record in log.records if 'all fits, but' in record.getMessage()]


def test_a_file_that_fits_another_network_is_said_to_be_of_another(tmp_path, log):
    trained = transformer()
    trained.backbone.arch.num_heads = 4
    [message] = said_in(tmp_path, log, trained, transformer())
    assert 'backbone.arch.num_heads=4 (here 2)' in message
    trained = transformer()
    trained.data_preprocessor.mean = [0.0, 0.0, 0.0]
    [message] = said_in(tmp_path, log, trained, transformer())
    assert 'data_preprocessor.mean=[0.0, 0.0, 0.0] (here [' in message


def test_what_one_config_leaves_out_is_the_default(tmp_path, log):
    trained = classifier()
    trained.backbone.update(depth=50, style='caffe')
    trained['head'].in_channels *= 4
    model = copy.deepcopy(trained)
    del model.backbone['style']
    [message] = said_in(tmp_path, log, trained, model)
    assert "backbone.style='caffe' (here 'pytorch')" in message


@pytest.mark.parametrize('trained, now, found', [
    (dict(type='LeakyReLU', negative_slope=0.1), dict(type='SiLU'), "type='LeakyReLU' (here 'SiLU')"),
    (dict(type='LeakyReLU', negative_slope=0.1), dict(type='LeakyReLU'), 'negative_slope=0.1 (here 0.01)'),
    (dict(type='BN'), dict(type='BN', eps=1e-3), 'eps=1e-05 (here 0.001)'),
    (dict(type='ReLU', inplace=True), dict(type='ReLU'), None),
    (dict(type='SyncBN', requires_grad=True, momentum=0.03), dict(type='BN'), None),
    (dict(type='BN', eps=1e-5), dict(type='mmdet.SyncBN'), None), (dict(type='Conv'), dict(type='Conv2d'), None)])
def test_what_a_layer_computes_is_compared_and_not_what_it_is_called(trained, now, found):
    wanted = [] if found is None else [f'neck.act_cfg.{found}']
    assert list(differences(dict(neck=dict(act_cfg=trained)), dict(neck=dict(act_cfg=now)))) == wanted


def test_the_same_network_is_no_other(tmp_path, log):
    trained = classifier()
    trained.backbone.update(frozen_stages=1, init_cfg=None, drop_path_rate=0.1, avg_down=False)
    assert not said_in(tmp_path, log, trained, classifier())
    assert not said_in(tmp_path, log, detector(), detector())
    assert not said_in(tmp_path, log, segmenter(), segmenter())


def test_text_that_is_no_config_says_nothing():
    for text in (None, '', 'model = make()', 'model = (', "model = dict(backbone=dict(depth=f(3)))"):
        trained = trained_model(text)
        assert not list(differences(trained or {}, dict(backbone=dict(depth=18))))


@pytest.mark.parametrize('classes, error', [
    (['a', 'b', 'c'], None), (['A', 'b', 'c'], None), (['c', 'a', 'b'], 'order'), (['x', 'b', 'c'], 'said')])
def test_logits_of_classes_in_another_order_are_refused(tmp_path, log, classes, error):
    model = classifier()
    model['head'].num_classes = 3
    file = saved(tmp_path / 'a.pth', dict(state_dict=build(model).state_dict(),
                                          meta=dict(dataset_meta=dict(classes=classes))))
    logits = dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence'))
    taught = distiller(model, dict(model=model, checkpoint=file), dict(kd=logits))
    metainfo = dict(classes=('a', 'b', 'c'))
    if error == 'order':
        with pytest.raises(ConfigError, match="^model.objectives.kd.taps: compares predictions, but class 0 is 'a' in "
                                              "the training dataset and 'c' in the checkpoint"):
            check_class_order(metainfo, taught)
    else:
        check_class_order(metainfo, taught)
    assert said(log, "'a' in the training dataset and 'x'") == (error == 'said')
    features = distiller(model, dict(model=model, checkpoint=file), dict(a=match('backbone')))
    check_class_order(metainfo, features)
    check_class_order(None, taught)
