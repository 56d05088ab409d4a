"""What cannot be planned is refused in one sentence, by SystemExit, and nothing is written."""
import json
import shutil

import pytest
import torch

from tests.planning.conftest import pair

CLASSIFIERS, DETECTORS, SEGMENTERS = pair('classification'), pair('detection'), pair('segmentation')
RANDOM = ['--dry-run', '--teacher-checkpoint', 'none']
TAUGHT = ['--teacher-checkpoint', 'teacher.pth']
BOXES = ['--data-root', 'boxes', '--train-ann', 'train.json', '--val-ann', 'val.json']


@pytest.fixture(scope='module')
def boxes(own_boxes, tmp_path_factory):
    """Own data with annotations of many kinds, most of them wrong."""
    folder = tmp_path_factory.mktemp('refused') / 'boxes'
    shutil.copytree(own_boxes, folder)
    train, val = (json.loads((folder / 'annotations' / f'instances_{name}2017.json').read_text())
                  for name in ('train', 'val'))
    categories, first = train['categories'], train['annotations'][0]
    unused = dict(id=9, name='washer')
    contents = dict(
        train=train, val=val, list=[1, 2], no_categories=dict(train, categories=[]),
        no_boxes=dict(train, annotations=[{k: v for k, v in first.items() if k != 'bbox'}]),
        nameless=dict(train, categories=[dict(id=1)]), twice=dict(train, categories=[*categories, categories[0]]),
        turned=dict(val, categories=categories[::-1]), fewer=dict(val, categories=categories[:2]),
        unused=dict(train, categories=[*categories, unused]),
        elsewhere=dict(train, images=[dict(train['images'][0], file_name='nowhere.jpg')]))
    for name, content in contents.items():
        (folder / f'{name}.json').write_text(json.dumps(content))
    (folder / 'broken.json').write_text('{')
    return folder


@pytest.fixture
def here(distill, boxes, teacher_file, tmp_path):
    """The folder in which the command runs."""
    (tmp_path / 'boxes').symlink_to(boxes)
    (tmp_path / 'teacher.pth').symlink_to(teacher_file)
    for name, text in {
            'taken.py': 'a = 1\n', 'broken.py': 'about = (\n', 'odd.py': "about = 'Odd'\ndetection = dict(a=3)\n",
            'roles.py': "about = 'A'\nclassification = dict(a=dict(type='FT', taps='<featurs>'))\n",
            'more.py': "about = 'A'\nclassification = dict(a=dict(type='FT', taps='<features>'))\nweigth = 3\n",
            'dark.py': f'_base_ = {DETECTORS[0]!r}\nval_evaluator = dict(_delete_=True, type="VOCMetric")\n',
            'timm_student.py': (
                f'_base_ = {CLASSIFIERS[0]!r}\nmodel = dict(_delete_=True, type="TimmClassifier", '
                'model_name="resnet10t", num_classes=10, loss=dict(type="CrossEntropyLoss"))\n'),
            'distilled.py': 'model = dict(type="mmfeatdistill.FeatureDistiller", student=None)\n'}.items():
        (tmp_path / name).write_text(text)
    torch.save(dict(state_dict={'backbone.other': torch.ones(3)}), tmp_path / 'foreign.pth')
    return distill


def boxed(train='train.json', val='val.json', *others):
    return [*DETECTORS, *RANDOM, '--data-root', 'boxes', '--train-ann', train, '--val-ann', val, *others]


ROWS = {
    # networks
    'no such student': (['nowhere.py', CLASSIFIERS[1]], ["STUDENT: there is no config file 'nowhere.py'"]),
    'no such teacher': ([CLASSIFIERS[0], 'mmpretrain::resnet18_8xb32_in2k'],
                        ["TEACHER: ", "Did you mean 'resnet18_8xb32_in1k'"]),
    'student without data': (['mmdet::_base_/models/faster-rcnn_r50_fpn.py', DETECTORS[1], *RANDOM],
                             ['STUDENT: ', 'has no training data', 'complete config']),
    'student that is distilled already': (['distilled.py', DETECTORS[1], *RANDOM],
                                          ['STUDENT: distilled.py is a distillation config already']),
    'teacher of another task': ([DETECTORS[0], CLASSIFIERS[1], *RANDOM],
                                ['TEACHER: ', 'is a classifier, and', 'is a detector', 'Give a detector']),
    'checkpoint that is not there': ([*CLASSIFIERS, '--teacher-checkpoint', 'nowhere.pth'],
                                     ["--teacher-checkpoint: there is no checkpoint", 'nowhere.pth']),
    'checkpoint of another network': ([*CLASSIFIERS, '--teacher-checkpoint', 'foreign.pth'],
                                      ['--teacher-checkpoint: ', 'foreign.pth']),
    'teacher that is not trained': (CLASSIFIERS, ['TEACHER: ', 'has no weights', '--teacher-checkpoint']),
    'no weights in the zoo': ([CLASSIFIERS[0], 'mmpretrain::resnet/resnet50_8xb32-coslr_in1k.py',
                               '--teacher-checkpoint', 'zoo'], ['--teacher-checkpoint: ', 'has no weights for']),
    'random teacher in a training': ([*CLASSIFIERS, '--teacher-checkpoint', 'none'],
                                     ['--teacher-checkpoint: none is for --dry-run']),
    # methods and taps
    'unknown method': ([*CLASSIFIERS, '--method', 'channel_mpl'],
                       ["--method: there is no 'channel_mpl'. Did you mean 'channel_mlp'?", 'fitnets']),
    'method of a file that is not there': ([*CLASSIFIERS, '--method', 'nowhere.py'],
                                           ['--method nowhere.py: there is no config file']),
    'method that is no Python': ([*CLASSIFIERS, '--method', 'broken.py'], ['--method broken.py: ', 'SyntaxError']),
    'method of another form': ([*CLASSIFIERS, '--method', 'odd.py'],
                               ["--method odd.py: expected 'about', a dict of objectives"]),
    'method with more in it': ([*CLASSIFIERS, '--method', 'more.py'], ['--method more.py: ', 'got also weigth']),
    'method with an unknown role': ([*CLASSIFIERS, *RANDOM, '--method', 'roles.py'],
                                    ['--method: roles does not fit', "<featurs> is no role", "mean 'features'? These"]),
    'method of another task': ([*DETECTORS, *RANDOM, '--method', 'kd'],
                               ['--method: kd does not fit this pair: it is for segmentation', 'These do: ', 'pkd']),
    'no method': (['timm_student.py', CLASSIFIERS[1], *RANDOM],
                  ['--method: channel_mlp does not fit this pair: ', 'Nor does any other; --list-methods', '--taps']),
    'unknown tap': ([*DETECTORS, *RANDOM, '--taps', 'nekc'], ['--taps: ', "'nekc'", "Did you mean 'neck'?"]),
    'unknown tap of the teacher': ([*DETECTORS, *RANDOM, '--taps', 'neck=nekc'], ['--taps: ', "'nekc'"]),
    'taps of a method that finds its own': ([*DETECTORS, *RANDOM, '--method', 'lsh', '--taps', 'neck'],
                                            ['--taps: lsh finds its places itself']),
    'taps of a method of two kinds': ([*CLASSIFIERS, *RANDOM, '--method', 'fcfd', '--taps', 'backbone'],
                                      ['--taps: fcfd finds its places itself, or matches several']),
    # data
    'data that are not there': ([*CLASSIFIERS, *TAUGHT, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
                                ["STUDENT: train_dataloader reads 'nowhere', which is not there"]),
    'teacher that knows nothing': ([*CLASSIFIERS, *TAUGHT, '--images', '20'],
                                   ['TEACHER: ', 'at chance level', 'Here, --images 0 leaves the check out']),
    'no such root': ([*DETECTORS, *RANDOM, '--data-root', 'nowhere'], ["--data-root: there is no folder 'nowhere'"]),
    'root alone': ([*DETECTORS, *RANDOM, '--data-root', 'boxes'], ['--train-ann: is missing; data of your own need']),
    'classes alone': ([*DETECTORS, *RANDOM, '--classes', 'nut'], ['--train-ann: is missing; data of your own need']),
    'no such annotations': (boxed('nowhere.json'), ["--train-ann: there is no file 'nowhere.json', neither below"]),
    'a folder as annotations': (boxed(val='annotations'), ["--val-ann: 'annotations' is a folder"]),
    'annotations that are no JSON': (boxed('broken.json'), ['--train-ann: broken.json is no JSON']),
    'annotations of another form': (boxed('list.json'), ["--train-ann: list.json is no annotation file", "'images'"]),
    'annotations without categories': (boxed('no_categories.json'), ['--train-ann: ', "it has no 'categories'"]),
    'annotations without boxes': (boxed('no_boxes.json'), ['--train-ann: ', "'annotations' have 'bbox'"]),
    'categories without names': (boxed('nameless.json'), ['--train-ann: ', "'categories' have 'name'"]),
    'a category twice': (boxed('twice.json'), ["--train-ann: twice.json has several categories 'nut'"]),
    'categories in another order': (boxed(val='turned.json'), ['--val-ann: ', 'another order', 'sort both alike']),
    'fewer categories': (boxed(val='fewer.json'), ["--val-ann: fewer.json has no category 'ring'"]),
    'class that is not in the file': (boxed('train.json', 'val.json', '--classes', 'nuts'),
                                      ["--classes: train.json has no category 'nuts'. Did you mean 'nut'?"]),
    'class without boxes': (boxed('unused.json', 'unused.json', '--classes', 'washer'),
                            ['--train-ann: nothing in unused.json is of the categories washer']),
    'images that are not there': (boxed('elsewhere.json'), ['--train-images: nowhere.jpg, the first image']),
    'another folder of images': (boxed('train.json', 'val.json', '--val-images', 'train2017'),
                                 ['--val-images: ', 'is not in train2017']),
    'own boxes for a segmenter': ([*SEGMENTERS, *RANDOM, *BOXES], ['STUDENT: --data-root is for students', 'CocoD']),
    'own boxes for another metric': (['dark.py', DETECTORS[1], *RANDOM, *BOXES],
                                     ['STUDENT: --data-root is for students that are evaluated by CocoMetric']),
    # the place, numbers, the machine
    'place that is taken': ([*CLASSIFIERS, *RANDOM, '--out', 'taken.py'],
                            ['--out: taken.py exists, and is not overwritten', 'tools/train.py taken.py']),
    'place that is no config': ([*CLASSIFIERS, *RANDOM, '--out', 'taken.txt'], ['--out: expected the name of a conf']),
    'weight of several losses': ([*DETECTORS, *RANDOM, '--method', 'fgd', '--weight', '1', '--images', '0'],
                                 ['--weight: FGD has no one loss_weight; give --ratio']),
    'weight and ratio': ([*CLASSIFIERS, *RANDOM, '--weight', '1', '--ratio', '1'], ['argument --ratio: not allowed']),
    **{f'{option} {value}': ([*CLASSIFIERS, *RANDOM, option, value], [f'argument {option}: expected', repr(value)])
       for option, value in (('--weight', '0'), ('--weight', 'inf'), ('--ratio', '-1'), ('--ratio', 'x'),
                             ('--iterations', '1'), ('--images', '5'))},
    'mixed precision without a GPU': ([*CLASSIFIERS, '--amp'], ['--amp: ']),
    'no base for the learning rate': ([*CLASSIFIERS, '--auto-scale-lr'], ['--auto-scale-lr: ']),
}


# Those that try every method, or evaluate.
LONG = {'no method', 'weight of several losses', 'teacher that knows nothing'}


@pytest.mark.parametrize('arguments, words', [
    pytest.param(*row, id=name, marks=[pytest.mark.slow] if name in LONG else []) for name, row in ROWS.items()])
def test_refusals(here, arguments, words):
    told = here.refusal(*arguments)
    assert told.startswith(words[0]) and all(word in told for word in words), told
