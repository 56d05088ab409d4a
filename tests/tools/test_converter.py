"""The digit scenes, as the libraries' stock datasets read them."""
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from mmengine import registry as root
from mmengine.registry import init_default_scope

from tests.conftest import SCENES, load_script


@pytest.fixture(scope='module')
def converter():
    """With four scenes a split."""
    script = load_script('tools/dataset_converters/digit_scenes.py')
    script.LAYOUTS = {name: dataclasses.replace(layout, scenes=(4, 3)) for name, layout in script.LAYOUTS.items()}
    return script


def digest(folder):
    """Of all files below a folder: names and contents."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        found.update(str(path.relative_to(folder)).encode() + b'\0' + path.read_bytes())
    return found.hexdigest()


def dataset(scope, **cfg):
    init_default_scope(scope)
    return root.DATASETS.build(cfg)


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_equal_seeds_give_equal_files(converter, tmp_path, task):
    for name, seed in (('a', '5'), ('b', '5'), ('c', '6')):
        converter.main([str(tmp_path / name), '--task', task, '--seed', seed])
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b') != digest(tmp_path / 'c')


def test_the_number_of_scenes_changes_none_of_them(converter, tmp_path, digits):
    converter.main([str(tmp_path), '--task', 'detection'])
    small, large = tmp_path / 'detection', digits / 'data' / 'digits' / 'detection'
    pictures = sorted(path.relative_to(small) for path in small.rglob('*.png'))
    assert len(pictures) == 7
    assert all((small / name).read_bytes() == (large / name).read_bytes() for name in pictures)


def test_a_finished_folder_is_kept_and_another_is_refused(converter, tmp_path, capsys):
    arguments = [str(tmp_path), '--task', 'classification']
    converter.main(arguments)
    assert 'written' in capsys.readouterr().out
    before = digest(tmp_path)
    converter.main(arguments)
    assert 'already complete' in capsys.readouterr().out and digest(tmp_path) == before
    with pytest.raises(SystemExit) as exit_:
        converter.main([*arguments, '--seed', '1'])
    assert exit_.value.code == 1 and 'holds other data' in capsys.readouterr().err
    assert digest(tmp_path) == before


def test_an_interrupted_conversion_leaves_nothing(converter, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(converter, 'compose_scene', interrupt)
    with pytest.raises(KeyboardInterrupt):
        converter.main([str(tmp_path / 'out'), '--task', 'detection'])
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('arguments', [['--seed', '-1'], ['--task', 'tracking'], ['--seed', 'x']])
def test_wrong_arguments(converter, tmp_path, arguments):
    with pytest.raises(SystemExit) as exit_:
        converter.main([str(tmp_path), *arguments])
    assert exit_.value.code == 2


def test_training_and_test_share_no_original(converter):
    sources = converter.load_sources()
    train, val = (sources[split] for split in ('train', 'val'))
    assert len(train.digits) + len(val.digits) == 1797  # all of scikit-learn's
    seen = {digit.tobytes() for digit in train.digits}
    assert not any(digit.tobytes() in seen for digit in val.digits)
    assert set(train.labels) == set(val.labels) == set(range(10))
    for first, second in zip(train.photographs, val.photographs):
        assert first.shape[:1] == second.shape[:1] and not np.shares_memory(first, second)
        assert first.shape[1] + second.shape[1] == 640
        assert not np.array_equal(first[:, :50], second[:, :50])


# --- the stock datasets ----------------------------------------------------------------------


@pytest.mark.parametrize('split, count', zip(('train', 'val'), SCENES))
def test_mmpretrain_reads_class_folders(in_digits, split, count):
    data = dataset('mmpretrain', type='CustomDataset', data_root='data/digits/classification', data_prefix=split,
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    assert len(data) == count and set(data.CLASSES) <= set('0123456789')
    sample = data[0]
    assert sample['inputs'].shape == (3, 64, 64)
    folder = sample['data_samples'].img_path.split('/')[-2]
    assert data.CLASSES[sample['data_samples'].gt_label.item()] == folder


@pytest.mark.parametrize('split, count', zip(('train', 'val'), SCENES))
def test_mmdet_reads_boxes_and_masks(in_digits, split, count):
    data = dataset('mmdet', type='CocoDataset', data_root='data/digits/detection',
                   ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'),
                   metainfo=dict(classes=tuple('0123456789')), pipeline=[
                       dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                       dict(type='PackDetInputs')])
    assert len(data) == count
    number = 0
    for sample in data:
        assert sample['inputs'].shape == (3, 96, 96)
        instances = sample['data_samples'].gt_instances
        assert 1 <= len(instances) <= 3
        assert not instances.masks.masks.sum(0).max() > 1, 'what is seen of two digits does not overlap'
        for box, mask in zip(instances.bboxes.tensor, instances.masks.masks):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            number += 1
    annotations = json.loads((in_digits / f'data/digits/detection/annotations/{split}.json').read_text())['annotations']
    assert number == len(annotations), 'the dataset filters none of them out'
    ids = [annotation['id'] for annotation in annotations]
    assert len(set(ids)) == len(ids) and min(ids) == 1


@pytest.mark.parametrize('split, count', zip(('train', 'val'), SCENES))
def test_mmseg_reads_label_maps(in_digits, split, count):
    data = dataset('mmseg', type='CityscapesDataset', data_root='data/digits/segmentation',
                   data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
    assert len(data) == count
    labels = set()
    for sample in data:
        assert sample['inputs'].shape == (3, 96, 96)
        labels |= set(sample['data_samples'].gt_sem_seg.data.unique().tolist())
    assert 0 in labels and labels <= set(range(11)) and len(labels) > 3


def test_a_segmented_digit_is_visible(in_digits):
    """Labels and image belong together: a digit differs from what lies under it."""
    data = dataset('mmseg', type='CityscapesDataset', data_root='data/digits/segmentation',
                   data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
    brighter = []
    for sample in data:
        mask = sample['data_samples'].gt_sem_seg.data[0] > 0
        image = sample['inputs'].float().amax(0)
        brighter.append((image[mask].mean() - image[~mask].mean()).item())
    assert np.mean(np.array(brighter) > 50) > 0.9
