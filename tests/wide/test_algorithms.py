"""The trial of every algorithm: what it finds of some, and that its page is what was found."""
import json
import re

import pytest

from tests.wide.algorithms import ALONE, DOCS, FAULT, REFUSED, TRAINS, Outcome, report, smallest_config, trial


def test_the_page_is_what_was_found():
    found = {name: Outcome(*outcome) for name, outcome in json.loads((DOCS / 'algorithms.json').read_text()).items()}
    page = (DOCS / 'algorithms.md').read_text()
    [total] = re.findall(r'of (\d+) have been', page)  # of the versions with which they were tried
    assert page == report(found, int(total))
    assert not [name for name, outcome in found.items() if outcome.outcome == FAULT]


def test_small_networks_are_chosen():
    assert smallest_config('mmdet/yolox') == 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py'
    assert 'r50' in smallest_config('mmdet/retinanet') or 'r18' in smallest_config('mmdet/retinanet')


@pytest.mark.slow
@pytest.mark.parametrize('folder, outcome, reason', [
    ('mmdet/retinanet', TRAINS, 'mine.loss_4'), ('mmseg/fcn', TRAINS, 'mine.loss_3'),
    ('mmpretrain/resnet', TRAINS, 'mine.loss_0'), ('mmpretrain/mae', REFUSED, 'views or masked images'),
    ('mmdet/cascade_rpn', ALONE, 'num_classes')])
def test_a_folder(folder, outcome, reason):
    found = trial(folder)
    assert found.outcome == outcome and reason in found.reason
