"""Real trainings through the benchmark, the generations and the demo; very short ones."""
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.experiments.generations import plan_generations
from mmfeatdistill.zoo.configs import build_model
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS

CONFIG = str(CONFIGS / DISTILLED['classification'])
STUDENT = str(CONFIGS / STUDENTS['classification'])
TINY = ['train_cfg.max_epochs=1', 'train_dataloader.num_batch_per_epoch=2', 'train_dataloader.batch_size=8',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'val_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1']


def benchmark(*arguments: str) -> int:
    return load_script('tools/compare_methods.py').main([*arguments, '--cfg-options', *TINY])


def written(folder: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob('seed_*/*/result.json')}


def test_a_benchmark_is_run_once_and_does_not_depend_on_the_jobs(in_digits, tmp_path, capsys):
    assert benchmark(CONFIG, STUDENT, '--seeds', '1', '--out', str(tmp_path / 'two'), '--jobs', '2', '--time', '1') == 0
    assert 'resnet18-w8_digits.py: no distillation config, skipped.' in capsys.readouterr().err
    before = written(tmp_path / 'two')
    assert set(before) == {'channel-mlp_resnet18-w8_digits', 'resnet18-w8_digits', 'resnet18-w32_digits'}
    report = tmp_path / 'two' / 'benchmark.md'
    (picture,) = (tmp_path / 'two').glob('*.png')
    assert f']({picture.name})' in report.read_text() and picture.read_bytes().startswith(b'\x89PNG')
    row = re.search(r'^\| channel-mlp \|.*', report.read_text(), re.MULTILINE)[0]
    assert re.fullmatch(r'\| channel-mlp \| [\d.]+ \| [\d.]+ \| [-+][\d.]+ \| .*too few seeds( \| [\d.]+){6} \|', row)
    timed = (tmp_path / 'two' / 'seed_1' / 'channel-mlp_resnet18-w8_digits' / 'step.json').stat().st_mtime_ns
    report.unlink()
    assert benchmark(CONFIG, '--seeds', '1', '--out', str(tmp_path / 'two'), '--jobs', '2', '--time', '1') == 0
    assert written(tmp_path / 'two') == before and row in report.read_text()
    assert (report.parent / 'seed_1' / 'channel-mlp_resnet18-w8_digits' / 'step.json').stat().st_mtime_ns == timed
    for folder in (tmp_path, in_digits, CONFIGS.parent):
        assert str(folder) not in report.read_text()

    assert benchmark(CONFIG, '--seeds', '1', '--out', str(tmp_path / 'one'), '--jobs', '1', '--time', '0') == 0
    weights = [torch.load(tmp_path / name / 'seed_1' / 'channel-mlp_resnet18-w8_digits' / 'epoch_1.pth',
                          weights_only=False)['state_dict'] for name in ('two', 'one')]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_jobs_of_a_cluster_train_what_one_machine_would(in_digits, tmp_path, capsys):
    arguments = [CONFIG, '--seeds', '1', '--out', str(tmp_path / 'out'), '--time', '1']
    assert benchmark(*arguments, '--slurm') == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if '$(sbatch' in line]
    commands = [shlex.split(shlex.split(line.partition('=')[2].strip('$()'))[-1].removeprefix('--wrap='))
                for line in lines]
    names = [words[-1] for words in commands]
    assert names == ['seed_1/resnet18-w32_digits', 'seed_1/resnet18-w8_digits', 'seed_1/channel-mlp_resnet18-w8_digits']
    assert ['afterok' in line for line in lines] == [False, False, True] and not (tmp_path / 'out').exists()
    main = load_script('tools/compare_methods.py').main
    with pytest.raises(SystemExit, match='needs seed_1/resnet18-w32_digits, which is not finished'):
        main(commands[2][2:])
    with pytest.raises(SystemExit, match='no such training. There are: seed_1/resnet18-w32_digits, '):
        benchmark(*arguments, '--only', 'seed_1/other')
    for words, count in zip(commands, (1, 2, 3)):
        assert main(words[2:]) == 0 and len(written(tmp_path / 'out')) == count
    assert not (tmp_path / 'out' / 'benchmark.md').exists()
    capsys.readouterr()
    assert benchmark(*arguments, '--slurm') == 0 and '$(sbatch' not in capsys.readouterr().out
    assert benchmark(*arguments, '--report-only') == 0
    report = (tmp_path / 'out' / 'benchmark.md').read_text()
    assert re.search(r'\| channel-mlp \| [\d.]+ \| .*too few seeds( \| [\d.]+){6} \|', report)
    assert 'trainings side by side: not recorded' in report


@pytest.mark.slow
def test_methods_are_planned_for_a_pair(in_digits, tmp_path, capsys):
    teacher = str(CONFIGS / 'digits' / 'resnet18-w32_digits.py')
    torch.save(dict(state_dict=build_model(Config.fromfile(teacher)).state_dict()), 'teacher.pth')
    arguments = [STUDENT, teacher, '--teacher-checkpoint', 'teacher.pth', '--seeds', '1', '--out',
                 str(tmp_path / 'out'), '--time', '0']
    assert benchmark(*arguments, '--methods', 'dkd', 'kd') == 0
    report = (tmp_path / 'out' / 'benchmark.md').read_text()
    assert '## resnet18-w8_digits: accuracy/top1' in report
    assert all(re.search(rf'^\| {name} from resnet18-w32-digits \| [\d.]+ \|', report, re.MULTILINE)
               for name in ('dkd', 'kd')), report
    planned = {file: file.stat().st_mtime_ns for file in (tmp_path / 'out' / 'configs').iterdir()}
    capsys.readouterr()
    assert benchmark(*arguments, '--methods', 'kd', 'dkd', '--report-only') == 0
    assert planned == {file: file.stat().st_mtime_ns for file in planned} and len(planned) == 2
    with pytest.raises(SystemExit, match="--method: there is no 'chanel_mlp'. Did you mean 'channel_mlp'"):
        benchmark(*arguments, '--methods', 'chanel_mlp')
    with pytest.raises(SystemExit, match='--methods: expected STUDENT TEACHER in place of configs, got 1 names'):
        benchmark(STUDENT, '--methods', 'all')


def test_nothing_is_trained_without_a_metric_to_compare(in_digits, tmp_path):
    with pytest.raises(SystemExit, match='save_best says by which metric.* by --cfg-options'):
        load_script('tools/compare_methods.py').main([CONFIG, '--out', str(tmp_path / 'out'), '--cfg-options',
                                                'default_hooks.checkpoint.save_best=None'])
    assert not (tmp_path / 'out').exists()


def test_a_failed_training_is_in_the_report_and_in_the_exit_code(in_digits, tmp_path, capsys):
    config = tmp_path / 'bad_resnet18-w8_digits.py'
    config.write_text(f"_base_ = {CONFIG!r}\nmodel = dict(objectives=dict(stage4=dict(taps=['bakbone'])))")
    arguments = [str(config), '--seeds', '1', '--out', str(tmp_path / 'out'), '--time', '0', '--report',
                 str(tmp_path / 'report.md')]
    assert benchmark(*arguments) == 1
    assert "Did you mean 'backbone'" in capsys.readouterr().err
    assert re.search(r'\| student alone \| [\d.]+ ', (tmp_path / 'report.md').read_text())
    assert benchmark(*arguments, '--report-only') == 0
    report = (tmp_path / 'report.md').read_text()
    assert '| bad | failed | - | - | - | - |' in report and '--report-only' not in report


@pytest.mark.slow
def test_each_generation_is_taught_by_the_one_before(in_digits, tmp_path, capsys):
    config = tmp_path / 'feed_resnet18-w8_digits.py'
    config.write_text(f'_base_ = {CONFIG!r}\nmodel = dict(teacher=dict(config={STUDENT!r}))')
    generations = load_script('tools/generations.py').main

    def run(count: int) -> list[dict]:
        assert generations([str(config), '--generations', str(count), '--out', str(tmp_path / 'out'), '--cfg-options',
                            *TINY]) == 0
        return json.loads((tmp_path / 'out' / 'seed_1' / 'generations.json').read_text())

    assert [row['number'] for row in run(1)] == [0, 1]
    before = written(tmp_path / 'out')
    rows = run(2)
    assert [row['number'] for row in rows] == [0, 1, 2]
    assert written(tmp_path / 'out') == {**before, 'generation_2': written(tmp_path / 'out')['generation_2']}
    for row, previous in zip(rows[1:], rows):
        assert row['over_previous'] == row['score'] - previous['score']
        # Not that of the student alone, which ends in _student.py.
        (dumped,) = (tmp_path / 'out' / 'seed_1' / f'generation_{row["number"]}').glob('*[!t].py')
        assert Config.fromfile(dumped).model.teacher.checkpoint == previous['checkpoint']
    table = (tmp_path / 'out' / 'seed_1' / 'generations.md').read_text()
    assert len(table.splitlines()) == 5 and table.splitlines()[2].startswith('| 0 | ')

    chain = plan_generations(str(config), 2, 1, 'out', first=rows[0]['checkpoint']).generations
    assert list(chain) == [1, 2] and list(chain[2].needs.values()) == [chain[1]]
    assert chain[1].load({}).model.teacher.checkpoint == rows[0]['checkpoint'] and not chain[1].needs


@pytest.mark.parametrize('teacher, message', [
    (dict(), "resnet18-w32_digits.py' is another architecture"),
    ([dict(config=STUDENT, checkpoint=None)], 'one teacher, got a list of 1')])
def test_a_chain_needs_one_teacher_like_the_student(tmp_path, teacher, message):
    config = tmp_path / 'feed_resnet18-w8_digits.py'
    config.write_text(f'_base_ = {CONFIG!r}\nmodel = dict(teacher={teacher!r})')
    with pytest.raises(ConfigError, match=message):
        plan_generations(str(config), 1, 1, str(tmp_path))


@pytest.mark.slow
def test_the_demo(in_digits, monkeypatch):
    demo = load_script('tools/demo.py')
    (in_digits / 'configs').symlink_to(CONFIGS)
    monkeypatch.setattr(demo, 'ROOT', str(in_digits))
    monkeypatch.setattr(demo, 'make_data', lambda names: None)
    monkeypatch.setattr('sys.argv', ['demo.py', '--task', 'classification'])
    demo.main()
    out = in_digits / 'work_dirs' / 'demo' / 'seed_1' / 'classification'
    assert {file.name for file in out.iterdir()} == {'summary.md', 'summary.json', 'curves.png', 'features.png',
                                                     'predictions.png'}
    assert set(json.loads((out / 'summary.json').read_text())['classification']) == {'teacher', 'student', 'distilled'}
    assert 'Classification, ResNet | top-1 %' in (out / 'summary.md').read_text()
