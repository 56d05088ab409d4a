"""Small models of three libraries, all from stock configs, and batches for them."""
import copy
import functools
from typing import Any

import torch
from mmengine import registry as root

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.zoo.configs import load_config

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
BN = dict(type='BN', requires_grad=True)


@functools.cache
def _stock(name: str) -> Any:
    return load_config(name).model


def stock(name: str) -> Any:
    """The model of a stock config, to be changed at will."""
    model = copy.deepcopy(_stock(name))
    model['_scope_'] = name.split('::')[0]
    return model


def detector(width: int = 8, channels: int = 16) -> Any:
    """Faster R-CNN, ResNet-18, FPN."""
    model = stock('mmdet::_base_/models/faster-rcnn_r50_fpn.py')
    model.backbone.update(depth=18, stem_channels=width, base_channels=width, frozen_stages=-1, norm_eval=False,
                          init_cfg=None)
    model.neck.update(in_channels=[width, 2 * width, 4 * width, 8 * width], out_channels=channels)
    model.rpn_head.update(in_channels=channels, feat_channels=channels)
    model.roi_head.bbox_roi_extractor.out_channels = channels
    model.roi_head.bbox_head.update(in_channels=channels, fc_out_channels=16, num_classes=10)
    model.train_cfg.rpn.sampler.num = 16
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=10)
    model.train_cfg.rcnn.sampler.num = 8
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=10)
    return model


def segmenter(width: int = 8) -> Any:
    """FCN, ResNet-18 of stride 8."""
    model = stock('mmseg::_base_/models/fcn_r50-d8.py')
    model.update(pretrained=None, auxiliary_head=None)
    model.data_preprocessor.size = (64, 64)
    model.backbone.update(depth=18, stem_channels=width, base_channels=width, norm_cfg=BN)
    model.decode_head.update(in_channels=8 * width, channels=8, norm_cfg=BN)
    return model


def classifier(width: int = 8) -> Any:
    """ResNet-18."""
    model = stock('mmpretrain::_base_/models/resnet18.py')
    model.data_preprocessor = dict(type='ClsDataPreprocessor', to_rgb=True, **RGB)
    model.backbone.update(stem_channels=width, base_channels=width)
    model['head'].update(num_classes=10, in_channels=8 * width, topk=(1,))
    return model


def transformer() -> Any:
    """Vision transformer of two layers."""
    model = stock('mmpretrain::_base_/models/vit-base-p16.py')
    model.data_preprocessor = dict(type='ClsDataPreprocessor', to_rgb=True, **RGB)
    model.backbone.update(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=64)
    model['head'].update(num_classes=10, in_channels=16)
    return model


def convnext(drop_path_rate: float = 0.5) -> Any:
    """ConvNeXt of two blocks a stage, with stochastic depth; its init_cfg stands at the top of the model."""
    model = stock('mmpretrain::_base_/models/convnext/convnext-base.py')
    model.data_preprocessor = dict(type='ClsDataPreprocessor', to_rgb=True, **RGB)
    model.backbone.update(arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]), drop_path_rate=drop_path_rate)
    model['head'].update(num_classes=10, in_channels=32)
    model.train_cfg = None
    return model


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    """Raw images, BGR, as a dataset gives them."""
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def detection_batch(*sizes: tuple[int, int]) -> dict:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    samples = []
    for height, width in sizes or ((64, 64), (64, 64)):
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), img_id=0,
                                             scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4., 4., 40., 44.], [20., 10., 60., 58.]]), labels=torch.tensor([1, 7]))
        samples.append(sample)
    return dict(inputs=images(*(sizes or ((64, 64), (64, 64)))), data_samples=samples)


def segmentation_batch(*sizes: tuple[int, int]) -> dict:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sizes = sizes or ((64, 64), (64, 64))
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size),
                             gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, *size)))) for size in sizes]
    return dict(inputs=images(*sizes), data_samples=samples)


def classification_batch(*sizes: tuple[int, int]) -> dict:
    from mmpretrain.structures import DataSample
    sizes = sizes or ((64, 64), (64, 64))
    samples = [DataSample(metainfo=dict(img_shape=size)).set_gt_label(i) for i, size in enumerate(sizes)]
    return dict(inputs=images(*sizes), data_samples=samples)


def build(model: Any) -> Any:
    return root.MODELS.build(copy.deepcopy(model))


def match(tap: Any = 'neck', weight: float = 1e-3, **options: Any) -> dict:
    """An objective that matches one tap."""
    return dict(type='FeatureMatch', taps=[tap], loss=dict(type='SquaredError', loss_weight=weight),
                connector=dict(type='ChannelMLP'), **options)


def last_stage(make: Any) -> dict:
    """Taps of a student's last stage and of a ResNet teacher; transformers and ConvNeXt give it pooled."""
    return dict(student='backbone[-1]', teacher='neck' if make in (transformer, convnext) else 'backbone')


def teacher(model: Any, **options: Any) -> dict:
    return dict(model=model, checkpoint=None, **options)


def distiller(student: Any = None, teachers: Any = None, objectives: Any = None) -> FeatureDistiller:
    """By default a detector with a twice as wide teacher, matched at the neck."""
    return FeatureDistiller(student or detector(), teachers or teacher(detector(16, 32)),
                            objectives or dict(fpn=match()))


def losses_of(model: Any, batch: dict) -> dict[str, torch.Tensor]:
    """The losses of a raw batch, as a training step computes them."""
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model(**data, mode='loss')


def total(model: Any, batch: dict) -> torch.Tensor:
    return model.parse_losses(losses_of(model, batch))[0]


def count_calls(module: torch.nn.Module) -> list:
    """A list that grows by one entry whenever the module is called."""
    calls: list = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def make_agree(model: FeatureDistiller) -> None:
    """Gives the teacher of an objective named fcfd the student's weights, and it bridges that change nothing."""
    objective = model.objectives['fcfd']
    for bridges in (objective.to_teacher, objective.to_student):
        for index in range(len(bridges)):
            bridges[index] = torch.nn.Identity()
    model.teachers[0].model.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith('distiller.')})
