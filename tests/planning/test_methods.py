"""What methods declare: each file that is shipped is of the form, and fits the digit pairs of the tasks it is for."""
import re

import pytest

from mmfeatdistill.planning.methods import Matchmaker, load_method, methods
from mmfeatdistill.planning.networks import TASKS, load_student, load_teacher
from mmfeatdistill.planning.weighing import given_weights
from mmfeatdistill.zoo.configs import load_config
from tests.helpers.runs import CONFIGS
from tests.planning.conftest import pair

UNNAMED = {'pure_python', 'digits', 'imagenet', 'cifar100', 'coco', 'voc', 'cityscapes', 'label_free'}
OF_OTHER_HEADS = {'crosskd', 'kd_detr', 'target_aware'}


def test_each_folder_of_a_method_has_one_of_its_name():
    folders = {readme.parent.name for readme in CONFIGS.glob('*/README.md')} - UNNAMED
    assert folders == set(methods())


@pytest.mark.parametrize('task', [
    task if task == 'detection' else pytest.param(task, marks=pytest.mark.slow) for task in TASKS.values()])
def test_methods_fit_the_pairs_of_their_tasks(in_digits, task):
    names = pair(task)
    student = load_student(names[0], load_config(names[0]))
    teacher, network = load_teacher(names[1], load_config(names[1]), None, student)
    matchmaker = Matchmaker(student, teacher, network)
    for method in methods().values():
        fit = matchmaker.fit(method)
        fits = task in method.objectives and method.name not in OF_OTHER_HEADS
        assert bool(fit.objectives) == fits, (method.name, fit.reason)
        assert '<' not in repr(fit.objectives), 'a role is left'
        if fit.objectives and method.ratios[task] is not None:
            assert all(weight.value > 0 for weight in given_weights(fit.objectives)), method.name


def test_a_method_of_ones_own(tmp_path):
    file = tmp_path / 'my_method.py'
    file.write_text("about = 'Mine'\nratio = dict(detection=3)\n"
                    "detection = dict(a=dict(type='FT', taps='<features>'))\n")
    method = load_method(str(file))
    assert (method.name, method.about, method.ratios) == ('my_method', 'Mine', dict(detection=3))
    assert re.fullmatch('<features>', method.objectives['detection']['a']['taps'])
