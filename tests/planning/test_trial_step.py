"""A training step on random images, of networks that take some sizes and of those that load what nobody asked for."""
import pytest
import torch
from mmdet.models.backbones import DetectoRS_ResNet
from mmengine.config import Config
from mmengine.model import BaseModule

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.planning.trial_step import trial_step
from mmfeatdistill.teacher.initialization import init_without_loading
from tests.helpers import models


def step(student, teacher):
    """A trial step of two classifiers whose backbones are matched."""
    match = dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Conv1x1'), loss=dict(type='SquaredError'))
    return trial_step(Config(dict(default_scope='mmpretrain', model=dict(
        type='mmfeatdistill.FeatureDistiller', student=student, teacher=dict(model=teacher, checkpoint=None),
        objectives=dict(match=match)))))


def windowed():
    """A classifier whose windows are larger than what is left of small images."""
    model = models.classifier()
    model.backbone = dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4))
    model['head'].update(in_channels=64)
    return model


def test_a_step_is_made_at_a_size_that_both_networks_take():
    assert step(models.classifier(), windowed()).task > 0


def test_the_failure_that_is_told_is_no_matter_of_the_size():
    """Small images do not fit the teacher; that the student cannot be trained at all is the reason to be told."""
    student = models.classifier()
    student['head'] = dict(type='EfficientFormerClsHead', num_classes=10, in_channels=64)
    student.neck = None
    student.backbone.out_indices = (3,)
    with pytest.raises(ConfigError, match='distilled version') as caught:
        step(student, windowed())
    assert 'window' not in str(caught.value)


def test_what_networks_load_by_themselves_is_not_loaded():
    """Not even by those that keep the name of a checkpoint, as DetectoRS does; they keep it."""
    backbone = DetectoRS_ResNet(depth=50, base_channels=8, stem_channels=8, sac=None, pretrained='torchvision://nowhere',
                                stage_with_sac=(False,) * 4, output_img=False)
    before = backbone.conv1.weight.clone()
    init_without_loading(backbone)
    assert backbone.pretrained == 'torchvision://nowhere' and not torch.equal(before, backbone.conv1.weight)


def test_the_name_of_a_checkpoint_is_kept_where_initializing_fails():
    class Failing(BaseModule):
        pretrained = None

        def init_weights(self):
            raise OSError(self.pretrained)

    module = Failing()
    module.pretrained = 'a.pth'
    with pytest.raises(OSError, match='None'):
        init_without_loading(module)
    assert module.pretrained == 'a.pth'


def test_a_part_of_a_checkpoint_is_not_loaded():
    """As mmseg's SAN does, by a type that is its own."""
    module = BaseModule(dict(type='Pretrained_Part', checkpoint='nowhere.pth'))
    init_without_loading(module)
    assert module.init_cfg is None
