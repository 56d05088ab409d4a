"""Messages name the cause, the config key, and the nearest thing that works."""
import copy
import importlib
import re
import sys
from importlib import metadata

import pytest
import torch
from mmengine import registry as root
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional as F

from mmfeatdistill.engine.hooks._runner_options import check_runner_options
from mmfeatdistill.errors import ConfigError, config_key, failed_import
from mmfeatdistill.teacher.image_sizes import fitting_multiple, fitting_size
from mmfeatdistill.zoo.configs import load_config, zoo_weights
from tests.helpers.models import (
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    segmenter,
    stock,
    teacher,
)


class Merge(nn.Module):
    """It adds what was halved four more times and enlarged again."""

    def forward(self, lateral):
        return lateral + F.interpolate(F.max_pool2d(lateral, 16, 16), scale_factor=16)


class Strict(BaseModel):
    """Its sides must be multiples of 32, or it takes one size only."""

    def __init__(self, data_preprocessor=None, size=None):
        super().__init__(data_preprocessor)
        self.backbone = nn.Conv2d(3, 4, 3, 2, 1)
        self.merge = Merge() if size is None else nn.Identity()
        self.size = size

    def extract_feat(self, inputs):
        assert self.size in (None, inputs.shape[-1]), 'Input size does not match.'
        return self.merge(self.backbone(inputs))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.extract_feat(inputs)


root.MODELS.register_module(name='StrictSides', module=Strict, force=True)


def student():
    model = detector()
    model.data_preprocessor.pad_size_divisor = 2
    return model


def learning_from(size=None, **options):
    return distiller(student(), teacher(dict(type='mmengine.StrictSides', size=size), **options),
                     dict(a=match(dict(student='backbone.conv1', teacher='merge'))))


def test_a_teacher_whose_sides_must_be_multiples_sees_resized_images():
    model = learning_from()
    losses = losses_of(model, detection_batch((64, 70)))
    assert losses['a.loss_0'] > 0 and model.teachers[0].input.size.multiple_of == 32
    with pytest.raises(RuntimeError, match=r'^model.teacher: it fails on a batch of shape \(1, 3, 64, 70\)'):
        losses_of(learning_from(input=dict(multiple_of=1)), detection_batch((64, 70)))


def test_a_teacher_of_one_size():
    with pytest.raises(RuntimeError, match=r'It takes images of 64 x 64: model.teacher.input=dict\(size=\(64, 64\)\)'):
        losses_of(learning_from(size=64), detection_batch((64, 70)))
    assert losses_of(learning_from(size=64, input=dict(size=(64, 64))), detection_batch((64, 70)))['a.loss_0'] > 0


@pytest.mark.parametrize('multiple', [2, 8, 64])
def test_the_multiple_is_found(multiple):
    assert multiple == fitting_multiple(lambda x: x.unflatten(-1, (-1, multiple)).unflatten(2, (-1, multiple)),
                                        torch.zeros(1, 3, multiple + 1, multiple))


def test_a_network_that_fails_on_everything():
    def run(images):
        raise KeyError('x')
    assert fitting_multiple(run, torch.zeros(1, 3, 9, 9)) is None
    assert fitting_size(run, torch.zeros(1, 3, 9, 9), (1, 3, 64, 64), 'model.teacher') == ''


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Some other library of the family, as mmrotate, with a metafile or without."""
    folder = tmp_path / 'site-packages' / 'mmrotated'
    (folder / '.mim' / 'configs' / 'a').mkdir(parents=True)
    (folder / '__init__.py').write_text('')
    for name in ('known', 'other'):
        (folder / '.mim' / 'configs' / 'a' / f'{name}.py').write_text('model = dict(type="A")\n')
    monkeypatch.syspath_prepend(str(folder.parent))
    importlib.invalidate_caches()
    return folder


def test_the_zoo_of_another_library(library):
    (library / '.mim' / 'model-index.yml').write_text('Import: [configs/a/metafile.yml]\n')
    (library / '.mim' / 'configs' / 'a' / 'metafile.yml').write_text(
        'Models:\n- Name: known\n  Config: configs/a/known.py\n  Weights: https://host/known.pth\n')
    assert zoo_weights(load_config('mmrotated::a/known.py').filename) == 'https://host/known.pth'
    with pytest.raises(ValueError, match="the zoo of mmrotated has no weights for 'other.py'.*Its metafiles name 1 "
                                         'configs with weights; give one of these, a path or a URL'):
        zoo_weights(load_config('mmrotated::a/other.py').filename)


def test_another_library_without_metafiles(library):
    with pytest.raises(ValueError, match="mmrotated was installed without a metafile .*so 'zoo' finds no weights for "
                                         "'known.py'; give a path or a URL"):
        zoo_weights(load_config('mmrotated::a/known.py').filename)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A library that fails when it is imported, as mmpretrain beside transformers 5: None for a base class."""
    folder = tmp_path / 'site-packages'
    for name, line in (('mmouter', 'import mminner'), ('mminner', 'class A(None): pass')):
        (folder / name).mkdir(parents=True)
        (folder / name / '__init__.py').write_text(f'{line}\n')
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield 'mmouter'
    for name in ('mmouter', 'mminner'):
        sys.modules.pop(name, None)


def test_a_package_that_cannot_be_imported(broken):
    with pytest.raises(ConfigError, match='^model.student: mminner, imported by mmouter, cannot be imported '
                                          '.*NoneType takes no arguments.*python -c .import mminner.'):
        with config_key('model.student'):
            importlib.import_module(broken)


def test_versions_that_do_not_go_together(tmp_path, monkeypatch):
    folder = tmp_path / 'site-packages' / 'mmpretrain'
    folder.mkdir(parents=True)
    (folder / 'broken.py').write_text('class A(None): pass\n')
    monkeypatch.setattr('mmpretrain.__path__', [str(folder)])
    monkeypatch.setattr(metadata, 'packages_distributions', lambda: {})
    monkeypatch.setattr(metadata, 'version', lambda name: dict(transformers='5.0.0', mmpretrain='1.3.6')[name])
    with pytest.raises(ConfigError, match=re.escape("model.student: mmpretrain 1.3.6 cannot be imported next to "
                                                    "transformers 5.0.0 (TypeError: NoneType takes no arguments): it "
                                                    "needs an earlier one; pip install 'transformers<5'.")):
        with config_key('model.student'):
            importlib.import_module('mmpretrain.broken')


def test_other_errors_stay_what_they_are():
    assert failed_import(ValueError('x')) is None
    with pytest.raises(ConfigError, match='^a: plain$'), config_key('a'):
        raise TypeError('plain')


def test_what_does_not_fit_is_explained_where_it_is_refused(tmp_path):
    model = classifier()
    weights = root.MODELS.build(model).backbone.state_dict()
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match="The names begin otherwise: with 'backbone.' in front, .* not in the file"):
        distiller(classifier(), dict(model=model, checkpoint=str(tmp_path / 'a.pth')), dict(a=match('backbone')))


@pytest.mark.parametrize('student, mentor, tap', [
    (classifier, lambda: of_classes(1000), 'head.fc'), (classifier, lambda: of_classes(1000), 'head')])
@pytest.mark.parametrize('loss, connector', [('KLDivergence', 'Identity'), ('KLDivergence', 'Conv1x1'),
                                             ('SquaredError', 'ChannelMLP')])
def test_logits_of_other_classes_are_refused_whatever_the_connector(student, mentor, tap, loss, connector):
    objective = dict(type='FeatureMatch', taps=tap, loss=dict(type=loss), connector=dict(type=connector))
    with pytest.raises(ConfigError, match=r'a\.taps: .* 10 and 1000 channels: other classes, or boxes') as caught:
        distiller(student(), teacher(mentor()), dict(a=objective))
    assert 'Conv1x1' not in str(caught.value) and 'Match features' in str(caught.value)


def of_classes(count):
    model = classifier(16)
    model['head'].num_classes = count
    return model


def test_boxes_of_another_encoding_are_refused():
    def one_stage(name):
        model = stock(name)
        model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
        model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
        model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10, stacked_convs=1,
                               norm_cfg=dict(type='GN', num_groups=4))
        return model

    gfl, atss = (one_stage(f'mmdet::{name}_r50_fpn_1x_coco.py') for name in ('gfl/gfl', 'atss/atss'))
    with pytest.raises(ConfigError, match=r'a\.taps: .*(stride|boxes in another encoding)'):
        distiller(gfl, teacher(atss), dict(a=match('bbox_head')))


def test_layers_of_heads_that_predict_boxes_in_another_encoding_are_refused():
    """ATSS scales what its layer gives, which so is not what the head returns."""
    def one_stage(name):
        model = stock(name)
        model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
        model.neck.update(in_channels=[8, 16, 32, 64], out_channels=64)
        model.bbox_head.update(in_channels=64, feat_channels=64, num_classes=10, stacked_convs=1)
        return model

    retina, atss = (one_stage(f'mmdet::{name}_r50_fpn_1x_coco.py') for name in ('retinanet/retinanet', 'atss/atss'))
    taps = dict(student='bbox_head.retina_reg:each', teacher='bbox_head.atss_reg:each')
    with pytest.raises(ConfigError, match='36 and 4 channels: other classes, or boxes in another encoding'):
        distiller(retina, teacher(atss), dict(a=dict(match(taps), connector=dict(type='Conv1x1'))))


@pytest.mark.parametrize('option, tap, words', [
    (dict(efficient_conv_bn_eval='backbone'), 'backbone.layer4', "'backbone', which efficient_conv_bn_eval runs"),
    (dict(efficient_conv_bn_eval=['backbone']), 'backbone.layer1.0', 'tap .backbone. itself'),
    (dict(efficient_conv_bn_eval=['backbone.layer1']), 'backbone.layer1:pre', 'tap .backbone.layer1. itself'),
    (dict(activation_checkpointing='backbone'), 'backbone', "'backbone', which activation_checkpointing runs"),
    (dict(activation_checkpointing=['backbone.layer4']), 'backbone.layer4.0', 'activation_checkpointing'),
    (dict(efficient_conv_bn_eval='backbone', activation_checkpointing=['backbone.layer2']), 'backbone', None)])
def test_options_of_the_runner_that_put_a_tap_out_of_reach_are_named(option, tap, words):
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match(tap)))
    if words is None:
        check_runner_options(option, model)
        return
    with pytest.raises(ConfigError, match=rf'^model\.objectives\.a\.taps: {tap!r} is in.*{words}'):
        check_runner_options(option, model)


FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'


def dense(name):
    model = stock(name)
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None, style='pytorch')
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=64)
    model.bbox_head.update(in_channels=64, feat_channels=64, num_classes=10, stacked_convs=1)
    return model


@pytest.mark.parametrize('tap', [
    'bbox_head', dict(student='bbox_head.conv_reg:each', teacher='bbox_head.atss_reg:each')])
def test_boxes_of_as_many_numbers_in_another_encoding_are_refused(tap):
    """FCOS gives distances to the sides, ATSS offsets to an anchor: four numbers each."""
    fcos, atss = dense(FCOS), dense('mmdet::atss/atss_r50_fpn_1x_coco.py')
    with pytest.raises(ConfigError, match=r'a\.taps: .*boxes in other encodings: FCOSHead with DistancePointBBoxCoder'
                                          r'\(\) and DeltaXYWHBBoxCoder\(means='):
        distiller(fcos, teacher(atss), dict(a=dict(match(tap), connector=None)))


def test_layers_that_give_boxes_of_other_lengths_are_refused_with_any_connector():
    """GFL gives 17 numbers for each side of a box; neither head returns what its last layer gives as it is."""
    taps = dict(student='bbox_head.gfl_reg:each', teacher='bbox_head.conv_reg:each')
    with pytest.raises(ConfigError, match=r'a\.taps: .*boxes in other encodings: GFLHead with 68 numbers at a position '
                                          'and FCOSHead with 4'):
        distiller(dense('mmdet::gfl/gfl_r50_fpn_1x_coco.py'), teacher(dense(FCOS)),
                  dict(a=dict(match(taps), connector=dict(type='Conv1x1'))))


def test_scores_of_heads_that_encode_boxes_differently_are_compared():
    fcos, atss = dense(FCOS), dense('mmdet::atss/atss_r50_fpn_1x_coco.py')
    taps = dict(student='bbox_head.conv_cls:each', teacher='bbox_head.atss_cls:each')
    model = distiller(fcos, teacher(atss), dict(a=dict(match(taps), connector=None)))
    assert len(model.objectives['a'].pairs) == 5


def test_outputs_for_other_anchors_are_refused():
    retina = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    other = dense(retina)
    other.bbox_head.anchor_generator.ratios = [2.0, 1.0, 0.5]
    with pytest.raises(ConfigError, match=r'for other anchors: AnchorGenerator\(ratios=\[0.5, 1.0, 2.0\].* and '):
        distiller(dense(retina), teacher(other), dict(a=dict(match('bbox_head'), connector=None)))
    other = dense(retina)
    other.bbox_head.bbox_coder.target_stds = [0.1, 0.1, 0.2, 0.2]
    with pytest.raises(ConfigError, match='boxes in other encodings: .*stds='):
        distiller(dense(retina), teacher(other), dict(a=dict(match('bbox_head'), connector=None)))
    distiller(dense(retina), teacher(dense(retina)), dict(a=dict(match('bbox_head'), connector=None)))


# --- objectives and parts of other networks ---------------------------------------------------


@pytest.mark.parametrize(('objective', 'needed'), [
    (dict(type='LSHRoI'), 'LSHRoI is for two-stage detectors'),
    (dict(type='FCFDBoxHead', taps=['neck']), 'FCFDBoxHead is for two-stage detectors'),
    (dict(type='SharedQueries'), 'SharedQueries is for Deformable DETR and DINO')])
def test_an_objective_for_other_networks_says_for_which_it_is(objective, needed):
    retina = dense('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    with pytest.raises(ConfigError, match=rf'a\.taps: student has no module .* {needed}'):
        distiller(retina, teacher(copy.deepcopy(retina)), dict(a=objective))


def test_parts_without_a_prefix_of_a_model_with_one():
    """The default scope of a training is the student's library; the prefix of a type is of that type alone."""
    model = segmenter()
    model.pop('_scope_', None)
    model.type = f"mmseg.{model.type.rpartition('.')[2]}"
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(
            ConfigError, match=r"model\.teacher: '\w+' is looked up in mmpretrain, which has none; mmseg has one\. "
                               r".*give the model _scope_='mmseg', next to type='mmseg\.EncoderDecoder'"):
        distiller(classifier(), teacher(model), dict(a=match('backbone')))
