"""The order of the demo; tests/experiments/test_trainings.py runs it."""
from types import SimpleNamespace

import pytest

from mmfeatdistill.experiments.comparison import compare
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS


@pytest.fixture
def demo():
    return load_script('tools/demo.py')


@pytest.fixture
def comparisons(demo, tmp_path):
    configs = [str(CONFIGS / 'channel_mlp' / task.config) for task in demo.TASKS.values()]
    return dict(zip(demo.TASKS, compare(configs, [1], str(tmp_path))))


def test_classification_is_shown_before_the_others_are_trained(demo, comparisons, monkeypatch, capsys):
    trained, reported = [], {}

    def run(experiments, jobs, on_progress, on_result):
        for experiment in experiments:
            trained.append(experiment)
            on_result(experiment, SimpleNamespace(seconds=1))

    def report(name, results):
        reported[name] = len(trained)
        assert set(results) == set(trained)
        return f'the table of {name}'

    monkeypatch.setattr(demo, 'run_experiments', run)
    demo.train_all(comparisons, 2, report)
    assert trained[:3] == [demo.roles(comparisons['classification'])[role]
                           for role in ('teacher', 'student', 'distilled')]
    # A student alone waits for nothing, so these fill the places in the end.
    assert trained[-3:] == [comparison.student for comparison in list(comparisons.values())[1:]]
    assert reported == dict(classification=3, faster_rcnn=10, mask_rcnn=11, pspnet=12)
    out = capsys.readouterr().out
    assert out.count('the table of') == 4
    assert 'Training 12 networks, 2 side by side' in out


def test_one_task_alone(demo, comparisons):
    alone = {'pspnet': comparisons['pspnet']}
    assert demo.in_order(alone) == list(demo.roles(alone['pspnet']).values())
