"""Order, sharing of the machine, resuming and failing of experiments; with such that train nothing."""
import multiprocessing
import os
import signal
import time

import pytest

from mmfeatdistill.experiments.child_process import Child
from mmfeatdistill.experiments.scheduler import (
    ExperimentsFailed,
    default_jobs,
    run_experiments,
    visible_devices,
    with_needs,
)
from tests.helpers.quick import events, quick, wait_for


def nap(experiment):
    time.sleep(0.3)


def started(folder) -> list[str]:
    return [event[0] for event in events(folder) if event[1] == 'start']


def test_each_runs_after_what_it_needs_and_takes_its_checkpoints(tmp_path):
    teachers = [quick(tmp_path / f'teacher_{i}', nap) for i in range(2)]
    alone = quick(tmp_path / 'alone', nap)
    distilled = quick(tmp_path / 'distilled', needs=teachers)
    shown, finished = [], []
    results = run_experiments([distilled, alone], jobs=2, on_progress=lambda *report: shown.append(report),
                              on_result=lambda experiment, result: finished.append(experiment))
    assert set(results) == {*teachers, alone, distilled} == set(finished)
    assert with_needs([distilled, alone, teachers[0]]) == [*teachers, distilled, alone]
    told = events(tmp_path)
    at = {(event[0], event[1]): place for place, event in enumerate(told)}
    assert all(at['distilled', 'start'] > at[f'teacher_{i}', 'end'] for i in range(2))
    (given,) = [event[2] for event in told if event[:2] == ['distilled', 'start']]
    assert given == {f'model.teacher.{i}.checkpoint': results[teacher].checkpoint for i, teacher in enumerate(teachers)}
    assert (alone, 1, 2, 'training') in shown


@pytest.mark.parametrize('jobs', [1, 2, 3])
def test_as_many_run_side_by_side_as_asked_for(tmp_path, jobs):
    def until_all_places_are_taken(experiment):
        wait_for(lambda: len(started(tmp_path)) >= jobs)
        nap(experiment)

    run_experiments([quick(tmp_path / str(i), until_all_places_are_taken) for i in range(4)], jobs=jobs)
    running, most = 0, 0
    for event in events(tmp_path):
        running += 1 if event[1] == 'start' else -1
        most = max(most, running)
    assert most == jobs


def test_each_gpu_has_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr('mmfeatdistill.experiments.scheduler.is_cuda_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5,GPU-8a')
    assert visible_devices() == ['5', 'GPU-8a'] and default_jobs() == 2

    def beside_another(experiment):
        experiment.tell('device', os.environ['CUDA_VISIBLE_DEVICES'])
        wait_for(lambda: len(started(tmp_path)) >= 2)
        nap(experiment)

    run_experiments([quick(tmp_path / str(i), beside_another) for i in range(4)])
    device = {event[0]: event[2] for event in events(tmp_path) if event[1] == 'device'}
    assert sorted(device.values()) == ['5', '5', 'GPU-8a', 'GPU-8a']
    running = set()
    for name, kind, *_ in events(tmp_path):
        if kind == 'device':
            assert device[name] not in running
            running.add(device[name])
        elif kind == 'end':
            running.remove(device[name])
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '5,GPU-8a'


@pytest.mark.parametrize('named, expected', [(None, ['0', '1']), ('', ['0', '1']), ('3,4,-1', ['3', '4'])])
def test_gpus_that_are_visible(monkeypatch, named, expected):
    assert visible_devices() == []
    monkeypatch.setattr('mmfeatdistill.experiments.scheduler.is_cuda_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if named is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', named)
    assert visible_devices() == expected


@pytest.mark.parametrize('threads', [1, 2])
def test_the_number_of_threads_is_fixed(tmp_path, threads):
    run_experiments([quick(tmp_path / 'one')], jobs=2, threads=threads)
    assert events(tmp_path)[0][3] == threads


def test_what_is_finished_is_not_run_again(tmp_path):
    def make():
        teacher = quick(tmp_path / 'teacher')
        return [quick(tmp_path / f'student_{i}', needs=[teacher]) for i in range(3)]

    run_experiments(make()[:2])
    assert sorted(started(tmp_path)) == ['student_0', 'student_1', 'teacher']
    run_experiments(make()[:2])
    assert len(started(tmp_path)) == 3
    run_experiments(make())
    assert started(tmp_path)[3:] == ['student_2']
    changed = quick(tmp_path / 'teacher', epochs=2)
    run_experiments([quick(tmp_path / 'student_0', needs=[changed])])
    assert started(tmp_path)[4:] == ['teacher', 'student_0'], 'a new teacher makes a new student'
    assert len(list(tmp_path.glob('teacher.*'))) == len(list(tmp_path.glob('student_0.*'))) == 1, 'moved aside'


def test_a_result_without_its_checkpoint_is_none(tmp_path):
    run_experiments([quick(tmp_path / 'one')])
    (tmp_path / 'one' / 'epoch_1.pth').unlink()
    assert quick(tmp_path / 'one').result() is None


def test_a_failure_stops_only_what_needs_it_and_is_reported_at_the_end(tmp_path):
    def fail(experiment):
        print('the reason')
        raise ZeroDivisionError('of the failure')

    def killed(experiment):
        os.kill(os.getpid(), signal.SIGKILL)

    teacher = quick(tmp_path / 'teacher', fail)
    orphan, dead, fine = (quick(tmp_path / 'orphan', needs=[teacher]), quick(tmp_path / 'dead', killed),
                          quick(tmp_path / 'fine', nap))
    with pytest.raises(ExperimentsFailed, match='(?s)the reason.*of the failure') as raised:
        run_experiments([orphan, dead, fine], jobs=2)
    assert set(raised.value.failures) == {teacher, orphan, dead}
    assert 'teacher failed' in raised.value.failures[orphan] and 'exit code -9' in raised.value.failures[dead]
    assert fine.result() is not None and teacher.failure() and orphan.failure() is None
    fixed = quick(tmp_path / 'teacher')
    run_experiments([fixed])
    assert fixed.failure() is None and fixed.result() is not None


def test_two_experiments_cannot_share_a_folder(tmp_path):
    with pytest.raises(ValueError, match='2 different experiments have the work directory'):
        run_experiments([quick(tmp_path / 'one'), quick(tmp_path / 'one', epochs=2)])
    assert not events(tmp_path)


def _long_with_a_worker(experiment):
    """Trains for long, with a process of its own next to it, as data workers are."""
    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True)
    worker.start()
    experiment.tell('pids', os.getpid(), worker.pid)
    time.sleep(60)


def _alive(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().split()[2] != 'Z'
    except FileNotFoundError:
        return False


def _run_interruptibly(experiments):
    # A shell lets what it starts in the background ignore this signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_experiments(experiments, 2)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_leaves_no_process(tmp_path, number):
    experiments = [quick(tmp_path / str(i), _long_with_a_worker) for i in range(2)]
    parent = multiprocessing.get_context('fork').Process(target=_run_interruptibly, args=(experiments,))
    parent.start()
    wait_for(lambda: sum(event[1] == 'pids' for event in events(tmp_path)) == 2)
    pids = [pid for event in events(tmp_path) if event[1] == 'pids' for pid in event[2:]]
    assert len(pids) == 4 and all(map(_alive, pids))
    os.kill(parent.pid, number)
    parent.join(60)
    assert parent.exitcode not in (None, 0) and not any(map(_alive, pids))


def test_children_end_after_a_parent_that_was_killed(tmp_path):
    def run():
        def work(send):
            while True:
                send('alive')
                time.sleep(0.01)

        children = [Child(work, str(tmp_path / f'{i}.log')) for i in range(2)]
        (tmp_path / 'pids').write_text(' '.join(str(child._process.pid) for child in children))
        while True:
            for child in children:
                child.receive()

    parent = multiprocessing.get_context('fork').Process(target=run)
    parent.start()
    wait_for(lambda: (tmp_path / 'pids').exists() and ' ' in (tmp_path / 'pids').read_text())
    pids = [int(pid) for pid in (tmp_path / 'pids').read_text().split()]
    parent.kill()
    parent.join()
    try:
        wait_for(lambda: not any(map(_alive, pids)))
    finally:
        for pid in filter(_alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_two_commands_at_once_train_once(tmp_path):
    first = quick(tmp_path / 'one', nap)
    others = [multiprocessing.get_context('fork').Process(target=run_experiments, args=([first],)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert started(tmp_path) == ['one'] and [other.exitcode for other in others] == [0, 0]
