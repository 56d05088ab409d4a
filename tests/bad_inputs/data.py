"""Batches that no training step can be made on."""
import functools
import math

import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

from mmfeatdistill.distillers import FeatureDistiller
from tests.helpers.models import (
    classification_batch,
    classifier,
    detection_batch,
    detector,
    match,
    segmentation_batch,
    segmenter,
    teacher,
    transformer,
)

OBJECTIVES = dict(
    detector=dict(fpn=match('neck'), lsh=dict(type='LSHRoI', connector=dict(type='Conv1x1')),
                  heads=dict(type='FCFDBoxHead', taps=['neck'])),
    segmenter=dict(last=match('backbone[-1]'), cwd=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                                                        loss=dict(type='ChannelWiseDivergence'))),
    classifier=dict(last=match('backbone'), kd=dict(type='Decoupled', taps=['head.fc']),
                    lsh=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), bias='zero',
                             only_correct=True)))
MODELS = dict(detector=(detector, detection_batch), segmenter=(segmenter, segmentation_batch),
              classifier=(classifier, classification_batch))


@functools.cache
def model_of(kind):
    """A distilled network, built once."""
    make, _ = MODELS[kind]
    return FeatureDistiller(make(), teacher(make(16)), OBJECTIVES[kind]).train()


def step(kind, change):
    """A training step on a batch after a change, which gives the logged losses."""
    def attempt(files=None):
        _, batch = MODELS[kind]
        return train_on(model_of(kind), change(batch()))
    return attempt


def train_on(model, batch):
    return model.train_step(batch, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0)))


@functools.cache
def model_with_a_teacher_of_a_fixed_size():
    layers = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    beit = transformer()
    beit.backbone = dict(type='BEiTViT', arch=layers, img_size=64, patch_size=16, out_type='featmap')
    return FeatureDistiller(classifier(), teacher(beit), dict(last=match('backbone'))).train()


def on_images_of_another_size(files=None):
    return train_on(model_with_a_teacher_of_a_fixed_size(), classification_batch((96, 96), (96, 96)))


def without_samples(batch):
    return dict(inputs=batch['inputs'])


def empty(batch):
    return dict(inputs=[], data_samples=[])


def channels(count):
    return lambda batch: dict(batch, inputs=[image[:1].repeat(count, 1, 1) for image in batch['inputs']])


def cropped(size):
    return lambda batch: dict(batch, inputs=[image[:, :size, :size] for image in batch['inputs']])


def first_only(batch):
    return {name: value[:1] for name, value in batch.items()}


def one_sample_less(batch):
    return dict(batch, data_samples=batch['data_samples'][:1])


def samples_of(make):
    return lambda batch: dict(batch, data_samples=make()['data_samples'])


def images(value):
    return lambda batch: dict(batch, inputs=[torch.full(image.shape, value) for image in batch['inputs']])


def each_sample(change):
    def changed(batch):
        for sample in batch['data_samples']:
            change(sample)
        return batch
    return changed


def boxes(*corners, **fields):
    found = InstanceData(bboxes=torch.tensor(corners).reshape(-1, 4), **fields)
    return each_sample(lambda sample: setattr(sample, 'gt_instances', found))


def label(value):
    return each_sample(lambda sample: sample.set_gt_label(value))


def class_of_boxes(value):
    return each_sample(lambda sample: sample.gt_instances.labels.fill_(value))


def class_of_pixels(value):
    return each_sample(lambda sample: sample.gt_sem_seg.data.fill_(value))


KEY = 'train_dataloader: '
ROWS = [
    *((f'{kind}: no data samples', step(kind, without_samples), [f"{KEY}the batch has no 'data_samples'", pack])
      for kind, pack in (('detector', 'PackDetInputs'), ('segmenter', 'PackSegInputs'), ('classifier', 'PackInputs'))),
    *((f'{kind}: an empty batch', step(kind, empty), [f'{KEY}the batch is empty', 'batch_size']) for kind in MODELS),
    *((f'{kind}: fewer samples than images', step(kind, one_sample_less),
       [f'{KEY}the batch has 2 images and 1 data samples']) for kind in ('detector', 'classifier')),
    *((f'{kind}: four channels', step(kind, channels(4)), [f'{KEY}images have 4 channels', 'takes 3', 'color_type'])
      for kind in ('segmenter', 'classifier')),
    ('detector: one channel', step('detector', channels(1)), [f'{KEY}images have 1 channels', 'takes 3', 'color_type']),
    ('a batch as a list', step('classifier', lambda batch: batch['inputs']),
     [f"{KEY}a batch is a dict with 'inputs' and 'data_samples'", 'got list']),
    ('a batch of another collate function', step('classifier', lambda batch: dict(img=batch['inputs'])),
     [f"{KEY}a batch is a dict with 'inputs' and 'data_samples'", "['img']"]),
    ('detector: no ground truth', step('detector', each_sample(lambda sample: delattr(sample, 'gt_instances'))),
     [f'{KEY}data sample 0 has no ground truth', 'gt_instances', 'LoadAnnotations']),
    ('segmenter: no ground truth', step('segmenter', each_sample(lambda sample: delattr(sample, 'gt_sem_seg'))),
     [f'{KEY}data sample 0 has no ground truth', 'gt_sem_seg', 'LoadAnnotations']),
    ('classifier: no ground truth', step('classifier', each_sample(lambda sample: delattr(sample, 'gt_label'))),
     [f'{KEY}data sample 0 has no ground truth', 'gt_label']),
    ('detector: boxes without classes', step('detector', boxes([4., 4., 40., 44.])),
     [f'{KEY}data sample 0 has gt_instances without labels: bboxes']),
    ('detector: class out of range', step('detector', class_of_boxes(77)),
     [f'{KEY}label 77 is out of range',
      'data sample 0, gt_instances.labels', '10 classes', '0 to 9', 'metainfo.classes']),
    ('detector: negative class', step('detector', class_of_boxes(-1)), [f'{KEY}label -1 is out of range']),
    ('segmenter: class out of range', step('segmenter', class_of_pixels(50)),
     [f'{KEY}label 50 is out of range', 'data sample 0, gt_sem_seg.data', '19 classes']),
    ('classifier: class out of range', step('classifier', label(99)),
     [f'{KEY}label 99 is out of range', 'data sample 0, gt_label', '10 classes', '0 to 9', 'num_classes']),
    ('classifier: negative class', step('classifier', label(-1)), [f'{KEY}label -1 is out of range']),
    *((f'{kind}: samples of another library', step(kind, samples_of(other)),
       [f"{KEY}the data samples are {theirs}'s", f'the network is of {own}'])
      for kind, other, theirs, own in (('detector', classification_batch, 'mmpretrain', 'mmdet'),
                                       ('segmenter', detection_batch, 'mmdet', 'mmseg'),
                                       ('classifier', segmentation_batch, 'mmseg', 'mmpretrain'))),
    ('classifier: images of a size that the teacher does not take', on_images_of_another_size,
     ['model.teacher: it fails on a batch of shape (2, 3, 96, 96) (RuntimeError: ', 'It ran on one of (1, 3, 64, 64)']),
    *((f'{kind}: images of NaN, under LSH', step(kind, images(math.nan)),
       ['model.objectives.lsh: the loss is not finite', 'clip_grad']) for kind in ('detector', 'classifier')),
]

UNUSUAL = [
    ('detector: no boxes', step('detector', boxes(labels=torch.zeros(0, dtype=torch.long)))),
    ('detector: images smaller than the stride', step('detector', cropped(8))),
    ('segmenter: images smaller than the stride', step('segmenter', cropped(4))),
    ('segmenter: pixels that are all ignored', step('segmenter', class_of_pixels(255))),
    ('segmenter: one image', step('segmenter', first_only)),
    ('classifier: one image', step('classifier', first_only)),
    ('classifier: images of one pixel', step('classifier', cropped(1))),
    ('classifier: gray images', step('classifier', channels(1))),
]
"""Batches that look wrong and are not."""
