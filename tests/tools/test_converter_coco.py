"""COCO's boxes as labels of images, as the stock dataset reads them."""
import json

import pytest
from mmengine import registry as root
from mmengine.registry import init_default_scope

from tests.conftest import load_script
from tests.helpers.tiny_data import Scene, make_coco

CLASSES = [f'class {number}' for number in range(80)]


@pytest.fixture(scope='module')
def converter():
    return load_script('tools/dataset_converters/coco_multi_label.py')


@pytest.fixture
def coco(tmp_path):
    make_coco(tmp_path, CLASSES)
    return tmp_path


def test_the_stock_dataset_reads_it(converter, coco, capsys):
    converter.main([str(coco), '--splits', 'train2017', 'val2017'])
    assert 'multi_label_train2017.json: 8 images, 80 classes' in capsys.readouterr().out
    init_default_scope('mmpretrain')
    data = root.DATASETS.build(dict(
        type='MultiLabelDataset', data_root=str(coco), ann_file='annotations/multi_label_val2017.json',
        data_prefix='val2017', pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
    assert len(data) == 4 and list(data.CLASSES) == CLASSES
    for number, sample in enumerate(data, 100):
        # Category ids have gaps, so an id is no index.
        assert sample['data_samples'].gt_label.tolist() == sorted(Scene(number, 80).labels.tolist())


def test_classes_are_ordered_by_id_and_count_once(converter):
    converted = converter.labels_of_images(dict(
        images=[dict(id=5, file_name='a.jpg'), dict(id=6, file_name='empty.jpg'), dict(id=4, file_name='b.jpg')],
        categories=[dict(id=90, name='last'), dict(id=3, name='first')],
        annotations=[dict(image_id=5, category_id=90, iscrowd=1), dict(image_id=5, category_id=90),
                     dict(image_id=5, category_id=3), dict(image_id=4, category_id=90)]))
    assert converted == dict(metainfo=dict(classes=['first', 'last']), data_list=[
        dict(img_path='a.jpg', gt_label=[0, 1]), dict(img_path='b.jpg', gt_label=[1])])


@pytest.mark.parametrize('content', [None, 'not json', '[]', '{"images": []}'])
def test_a_wrong_file_is_an_error_that_names_it(converter, tmp_path, capsys, content):
    (tmp_path / 'annotations').mkdir()
    source = tmp_path / 'annotations' / 'instances_val2014.json'
    if content:
        source.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        converter.main([str(tmp_path), '--splits', 'val2014'])
    assert exit_.value.code == 1 and str(source) in capsys.readouterr().err
    assert not (tmp_path / 'annotations' / 'multi_label_val2014.json').exists()


def test_a_conversion_may_be_repeated(converter, coco):
    arguments = [str(coco), '--splits', 'val2017']
    converter.main(arguments)
    first = (coco / 'annotations' / 'multi_label_val2017.json').read_text()
    converter.main(arguments)
    assert (coco / 'annotations' / 'multi_label_val2017.json').read_text() == first
    assert json.loads(first)['data_list']
