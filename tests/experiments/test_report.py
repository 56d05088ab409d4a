"""The report's figures against ones computed by hand."""
import csv
import io
import json
import os
from dataclasses import astuple, replace

import pytest
from matplotlib.pyplot import imread

from mmfeatdistill.experiments.comparison import compare
from mmfeatdistill.experiments.comparison_figure import _lines as comparison_lines
from mmfeatdistill.experiments.comparison_figure import comparison_figure
from mmfeatdistill.experiments.report import tables, verdict
from mmfeatdistill.experiments.report_formats import csv_text, json_text, markdown
from tests.helpers.quick import finish
from tests.helpers.runs import CONFIGS, DISTILLED

METRIC = 'coco/bbox_mAP'
# Fractions by seed, of which the tables make points: 20, 24, 22 alone; 30, 31, 35 distilled.
SCORES = dict(student=(0.20, 0.24, 0.22), teacher=(0.40, 0.44, 0.36), distilled=(0.30, 0.31, 0.35))


@pytest.fixture
def grid(tmp_path):
    """Three seeds of a config whose results are written by hand, and one that was not run."""
    ours, other = str(CONFIGS / DISTILLED['faster_rcnn']), tmp_path / 'kd_faster-rcnn_r18-w8_fpn_digits.py'
    other.write_text(f'_base_ = {ours!r}\nmodel = dict(objectives=dict(fpn=dict(loss=dict(loss_weight=1.0))))')
    comparisons = compare([ours, str(other)], [1, 2, 3], str(tmp_path / 'out'))
    for index, comparison in enumerate(comparisons[::2]):
        for role, experiment in (('student', comparison.student), ('teacher', comparison.teachers[0]),
                                 ('distilled', comparison.distilled)):
            experiment.claim()
            finish(experiment, SCORES[role][index], METRIC)
    return comparisons


def test_means_deviations_gains_and_verdict(grid):
    (table,) = tables(grid)
    assert (table.student, table.metric, table.seeds) == ('faster-rcnn_r18-w8_fpn_digits', METRIC, (1, 2, 3))
    student, teacher, distilled, other = table.rows
    assert [row.name for row in table.rows] == ['student alone', 'teacher faster-rcnn_r18-w32_fpn_digits',
                                                'channel-mlp', 'kd']
    assert student.scores == pytest.approx({1: 20.0, 2: 24.0, 3: 22.0})
    assert astuple(student.score) == pytest.approx((22.0, 2.0)) and astuple(teacher.score) == pytest.approx((40.0, 4.0))
    assert astuple(distilled.score) == pytest.approx((32.0, 7.0 ** 0.5))
    # Differences 10, 7, 13; their squared deviations 0 + 9 + 9, over n - 1 = 2.
    assert astuple(distilled.gain) == pytest.approx((10.0, 3.0))
    assert distilled.gap_closed == pytest.approx(10 / 18) and distilled.verdict == 'helps'
    assert (distilled.seconds_per_iter, distilled.peak_memory_mib) == (0.25, 100.0)
    assert set(other.scores.values()) == {'not run'} and other.score.mean is other.verdict is None


@pytest.mark.parametrize('alone, gains, expected', [
    ((60, 62), (3, 4), 'helps'), ((60, 62), (-3, -4), 'hurts'), ((60, 70), (3, 4), 'no clear difference'),
    ((60, 62), (0, 8), 'no clear difference'), ((60,), (9,), 'too few seeds')])
def test_verdict(alone, gains, expected):
    assert verdict(alone, gains) == expected


def test_missing_and_failed_cells_are_shown_and_left_out_of_the_figures(grid):
    second, third = grid[2], grid[4]
    for experiment in (second.distilled, third.student):
        os.remove(os.path.join(experiment.work_dir, 'result.json'))
    second.distilled.mark_failed('no memory')
    (table,) = tables(grid)
    student, _, distilled, _ = table.rows
    assert distilled.scores[2] == 'failed' and student.scores[3] == 'not finished'
    assert astuple(distilled.gain) == (pytest.approx(10.0), None) and distilled.gap_closed == pytest.approx(0.5)
    assert distilled.verdict == 'too few seeds'
    page = markdown([table], 'Benchmark', ['on one machine'])
    assert '| channel-mlp | 30.00 | failed | 35.00 | 32.50 ± 3.54 | +10.00 | 50 % | too few seeds |' in page
    assert '| kd | not run | not run | not run | - | - | - | - |' in page


def test_formats_agree(grid):
    found = tables(grid)
    page = markdown(found, 'Benchmark', ['on one machine'])
    assert page.startswith('# Benchmark\n\n- on one machine\n')
    assert ('| channel-mlp | 30.00 | 31.00 | 35.00 | 32.00 ± 2.65 | +10.00 ± 3.00 | 56 % | helps | 0.250 | 100 | - | '
            '- | - | - |') in page
    lines = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert len(lines) == 4 and float(lines[2]['gain_std']) == pytest.approx(3.0)
    assert lines[3]['seed 1'] == 'not run' and lines[3]['gain'] == ''
    data = json.loads(json_text(found, dict(jobs=2)))
    assert data['circumstances'] == dict(jobs=2)
    assert data['tables'][0]['rows'][2]['gain'] == dict(mean=pytest.approx(10.0), std=pytest.approx(3.0))


def test_the_picture_shows_every_row_that_has_scores(grid):
    (table,) = tables(grid)
    names = [line.name for line in comparison_lines(table)]
    assert names == ['student alone', 'channel-mlp', 'teacher\nfaster-rcnn_r18-w32_fpn_digits']
    plain = comparison_figure(table)
    step = dict(seconds=dict(student=0.1, distilled=0.2), ratio=dict(value=1.01, low=1.0, high=1.02))
    timed = replace(table, rows=tuple(replace(row, step=step) if row.role == 'distilled' else row
                                      for row in table.rows))
    assert '| 100.0 | 200.0 | 1.010 | - |' in markdown([timed], 'Benchmark', [])
    width = [imread(io.BytesIO(picture)).shape[1] for picture in (plain, comparison_figure(timed))]
    assert width[1] > width[0], 'the second panel is there where steps were timed'
    members = replace(table, rows=tuple(replace(row, role='member') if row.role == 'teacher' else row
                                        for row in table.rows))
    assert comparison_lines(members)[-1].scores == pytest.approx([40.0])
    comparison_figure(replace(table, rows=table.rows[3:]))


def test_a_teacher_that_is_no_better_leaves_no_gap(grid):
    for comparison in grid[::2]:
        finish(comparison.teachers[0], 0.1, METRIC)
    assert tables(grid)[0].rows[2].gap_closed is None


def test_a_result_with_other_metrics_is_no_score(grid):
    finish(grid[0].teachers[0], 0.5, 'coco/other')
    (table,) = tables(grid)
    assert table.rows[1].scores[1] == 'no such metric' and table.rows[2].gap_closed == pytest.approx(20 / 34)
