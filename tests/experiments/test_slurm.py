"""The script for a Slurm cluster, run by bash with an sbatch that only takes notes."""
import os
import re
import shlex
import subprocess

import pytest

from mmfeatdistill.experiments.slurm import submission_script
from tests.helpers.quick import finish, quick

SBATCH = """#!/usr/bin/env bash
echo "$@" >> "$NOTES"
printf '%s\\0' "$@" '' >> "$NOTES.words"
echo "$(wc -l < "$NOTES");cluster"
"""


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Runs a script; gives the words of each call of sbatch."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'sbatch').write_text(SBATCH)
    (tmp_path / 'bin' / 'sbatch').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    monkeypatch.setenv('NOTES', str(tmp_path / 'notes'))

    def run(script: str) -> list[list[str]]:
        subprocess.run(['bash'], input=script, text=True, check=True)
        words = tmp_path / 'notes.words'
        return [call.strip('\0').split('\0') for call in words.read_text().split('\0\0') if call.strip('\0')]
    return run


def option(words: list[str], name: str) -> str:
    (value,) = [word.partition('=')[2] for word in words if word.startswith(f'--{name}=')]
    return value


def test_jobs_wait_for_what_they_need_and_finished_ones_are_left_out(tmp_path, submit, monkeypatch):
    monkeypatch.setenv('SBATCH_ARGS', '-p gpu --time=1:00:00')
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    teachers = [quick(folder / f'teacher_{i}') for i in range(3)]
    finish(teachers[1], 1.0)
    alone, distilled = quick(folder / 'alone'), quick(folder / 'distilled', needs=teachers)
    experiments = {os.path.basename(e.work_dir): e for e in (*teachers, alone, distilled)}
    script = submission_script(experiments, lambda name: ['train', "it's $HOME", name], str(folder), 'out/slurm')
    jobs = submit(script)
    assert [option(words, 'job-name') for words in jobs] == [
        'out/teacher_0', 'out/teacher_2', 'out/alone', 'out/distilled']
    assert [shlex.split(option(words, 'wrap')) for words in jobs] == [
        ['train', "it's $HOME", name] for name in ('teacher_0', 'teacher_2', 'alone', 'distilled')]
    assert [option(words, 'dependency') for words in jobs] == ['singleton'] * 3 + ['singleton,afterok:1:2']
    common = {'--parsable', '--kill-on-invalid-dep=yes', '-p', 'gpu', '--time=1:00:00'}
    assert all(common < set(words) for words in jobs)
    assert option(jobs[0], 'output') == 'out/slurm/%j.log' and (folder / 'out' / 'slurm').is_dir()
    assert len(re.findall('sbatch ', script)) == 4
