"""Checkpoints that no teacher can be loaded from, and what is not said of a teacher's checkpoint."""
import torch

from tests.bad_inputs.configs import changed, fitting, teacher
from tests.helpers.models import build, classifier, segmenter


def write(folder):
    """The files that rows here name."""
    (folder / 'teacher.py').write_text(
        "_base_ = ['mmpretrain::_base_/models/resnet18.py']\ndefault_scope = 'mmpretrain'\n")
    weights = build(classifier(16)).state_dict()
    torch.save(build(classifier(8)).state_dict(), folder / 'narrow.pth')
    torch.save(build(segmenter(8)).state_dict(), folder / 'other.pth')
    torch.save(dict(epoch=3), folder / 'log.pth')
    torch.save({}, folder / 'nothing.pth')
    torch.save(torch.zeros(3), folder / 'tensor.pth')
    torch.save(dict(state_dict={}), folder / 'hollow.pth')
    torch.save({name: value for name, value in weights.items() if not name.startswith('head')}, folder / 'headless.pth')
    torch.save({f'student.{name}': value for name, value in weights.items()}, folder / 'prefixed.pth')
    torch.save(dict(weights, **{'head.fc.weight': torch.zeros(7, 3)}), folder / 'misshapen.pth')
    torch.save(weights, folder / 'complete.pth')
    (folder / 'cut.pth').write_bytes((folder / 'complete.pth').read_bytes()[:2000])
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'damaged.pth').write_bytes(b'<html>')


KEY = 'model.teacher.checkpoint: '
CHANGES = [
    ('checkpoint not given for a model', lambda cfg, files: cfg.teacher.pop('checkpoint'),
     ['model.teacher.checkpoint: is missing; give a path, a URL, or None']),
    ('checkpoint not given for a file', teacher(config='teacher.py'),
     ['model.teacher.checkpoint: is missing; give a path']),
    ("'zoo' for a file", teacher(config='teacher.py', checkpoint='zoo'),
     ["model.teacher.checkpoint: 'zoo' means the weights that a stock config's metafile names",
      'is no config of an installed MM library']),
    ("'zoo' for an inline model", fitting(checkpoint='zoo'), ["model.teacher.checkpoint: 'zoo' means the weights"]),
    ("'zoo' for a part of a config", teacher(config='mmdet::_base_/models/faster-rcnn_r50_fpn.py'),
     ['model.teacher.checkpoint: the zoo of mmdet has no weights', 'faster-rcnn_r50_fpn']),
    ("'zoo' for a config of several models",
     teacher(config='mmpretrain::convnext/convnext-base_32xb128_in1k-384px.py'),
     ['model.teacher.checkpoint: the zoo of mmpretrain has several weights', "Give the name of one model as 'config'"]),
    ('checkpoint of a wrong type', fitting(checkpoint=3),
     ['model.teacher.checkpoint: expected a path, a URL', 'got 3']),
    ('no such checkpoint', fitting(checkpoint='work_dirs/a.pth'),
     ["model.teacher.checkpoint: there is no checkpoint 'work_dirs/a.pth'", 'looked in']),
    ('checkpoint of another width', fitting(checkpoint='narrow.pth'),
     ['model.teacher.checkpoint: does not fit the teacher', 'of another shape', 'model [16', 'strict=False']),
    ('checkpoint of another model', fitting(checkpoint='other.pth'),
     ['model.teacher.checkpoint: does not fit', 'missing (', 'unexpected (', 'checkpoint of this very config.']),
    ('checkpoint without weights', fitting(checkpoint='log.pth'),
     ['model.teacher.checkpoint: ', "holds no weights: expected a 'state_dict'", "['epoch']"]),
    ('damaged checkpoint', fitting(checkpoint='damaged.pth'), ['model.teacher.checkpoint: ', 'cannot be read']),
    ('checkpoint that is empty', fitting(checkpoint='empty.pth'), [KEY, 'empty.pth', 'cannot be read']),
    ('checkpoint that was truncated', fitting(checkpoint='cut.pth'), [KEY, 'cut.pth', 'cannot be read']),
    ('checkpoint of nothing', fitting(checkpoint='nothing.pth'), [KEY, 'nothing.pth', 'holds no weights']),
    ('checkpoint with an empty state_dict', fitting(checkpoint='hollow.pth'), [KEY, 'hollow.pth', 'no weights']),
    ('checkpoint that is one tensor', fitting(checkpoint='tensor.pth'), [KEY, 'tensor.pth', 'holds no weights']),
    ('checkpoint without the head', fitting(checkpoint='headless.pth'),
     [KEY, 'headless.pth', '2 missing (head.fc.weight, head.fc.bias)', 'strict=False']),
    ('checkpoint with a prefix', fitting(checkpoint='prefixed.pth'), [KEY, 'prefixed.pth', 'unexpected (student.']),
    ('checkpoint with one other shape', fitting(checkpoint='misshapen.pth'),
     [KEY, 'misshapen.pth', 'head.fc.weight: file [7, 3], model [10, 128]']),
    ('checkpoint as a folder', fitting(checkpoint='.'), [KEY, "there is no checkpoint '.'"]),
    ('checkpoint as nothing', fitting(checkpoint=''), [KEY, "there is no checkpoint ''"]),
    ('checkpoint at an unknown kind of address', fitting(checkpoint='foo://a.pth'), [KEY, 'foo://a.pth']),
]
ROWS = [(name, changed(change), words) for name, change, words in CHANGES]
