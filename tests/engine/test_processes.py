"""What a job takes from torchrun's and Slurm's environment; tests/machines has both of them at work."""
import logging
import os
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from mmengine.config import Config

from mmfeatdistill.engine.command_line import configure_training
from mmfeatdistill.engine.processes import check_restarts, choose_port_of_slurm, join_on_cpus
from tests.helpers.runs import CONFIGS, STUDENTS

OF_SLURM = dict(SLURM_PROCID='3', SLURM_NTASKS='4', SLURM_NODELIST='a[1-2]', SLURM_LOCALID='1')


@pytest.fixture
def environment(monkeypatch):
    """Only what a test sets, and what the system needs."""
    for name in [name for name in os.environ if name.startswith(('SLURM_', 'TORCHELASTIC_', 'MASTER_'))]:
        monkeypatch.delenv(name)
    return monkeypatch


def config(launcher):
    return Config(dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(backend='gloo'))))


def test_what_srun_sets_becomes_what_pytorch_reads(environment, tmp_path):
    joined = []
    environment.setattr('torch.distributed.init_process_group', lambda *args, **kwargs: joined.append(dict(os.environ)))
    (tmp_path / 'scontrol').write_text('#!/bin/sh\n[ "$*" = "show hostnames a[1-2]" ] && printf "a1\\na2\\n"\n')
    (tmp_path / 'scontrol').chmod(0o755)
    environment.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'):
        environment.setenv(name, '')  # put back afterwards
    for name, value in OF_SLURM.items():
        environment.setenv(name, value)
    cfg = config('slurm')
    join_on_cpus(cfg)
    wanted = dict(RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='a1')
    assert {name: joined[0][name] for name in wanted} == wanted
    assert cfg.model_wrapper_cfg.type == 'MMDistributedDataParallel'


def test_a_process_that_srun_has_not_started_is_told_so(environment):
    with pytest.raises(ValueError, match='SLURM_PROCID is not set, so this is no process that srun has started'):
        join_on_cpus(config('slurm'))


def test_steps_and_jobs_on_a_node_have_ports_of_their_own(environment):
    def port(job, step, **options):
        environment.delenv('MASTER_PORT', raising=False)
        environment.setenv('SLURM_JOB_ID', str(job))
        environment.setenv('SLURM_STEP_ID', str(step))
        choose_port_of_slurm(options)
        return int(os.environ['MASTER_PORT'])

    ports = {port(job, step) for job in range(99_000, 99_100) for step in range(8)}
    assert len(ports) == 800 and min(ports) > 1024 and max(ports) < 32768
    assert port(1, 0, port=29501) == 29501
    environment.setenv('MASTER_PORT', '29502')
    choose_port_of_slurm({})
    assert os.environ['MASTER_PORT'] == '29502'


def test_a_job_that_is_started_again_says_where_it_goes_on(environment, tmp_path):
    check_restarts(None, str(tmp_path))
    environment.setenv('TORCHELASTIC_MAX_RESTARTS', '2')
    check_restarts('auto', str(tmp_path))
    with pytest.raises(ValueError, match=r'^--max-restarts 2: .* from the last checkpoint\. Add --resume: it begins '
                                         r'where there is no checkpoint .* where there is\.$'):
        check_restarts(None, str(tmp_path))
    with pytest.raises(ValueError, match=r'To begin with a/b\.pth, write this path into .*/last_checkpoint\.$'):
        check_restarts('a/b.pth', str(tmp_path))
    environment.setenv('TORCHELASTIC_MAX_RESTARTS', '0')
    environment.setenv('SLURM_RESTART_COUNT', '1')
    check_restarts(None, str(tmp_path))
    (tmp_path / 'last_checkpoint').touch()
    check_restarts('auto', str(tmp_path))
    with pytest.raises(ValueError, match=r'^Slurm has put this job back .* which it would write over\. Submit it again '
                                         'with --resume'):
        check_restarts(None, str(tmp_path))


def configured(tmp_path, options, resume):
    return configure_training(SimpleNamespace(
        config=str(CONFIGS / STUDENTS['classification']), work_dir=str(tmp_path), cfg_options=options, resume=resume,
        launcher='none', local_rank=0, amp=False, auto_scale_lr=False, check_teacher=None, student_alone=None))


@pytest.mark.parametrize('version, shared, warned', [
    ('2.14.1', 'True', True), ('2.14.1+cpu', 'True', True), ('2.14.1', 'False', False), ('2.1.2', 'True', False)])
def test_a_torchrun_that_remembers_the_dead_is_warned_of(environment, tmp_path, version, shared, warned):
    environment.setattr('torch.__version__', version)
    for name, value in dict(RANK='0', TORCHELASTIC_MAX_RESTARTS='2', TORCHELASTIC_USE_AGENT_STORE=shared).items():
        environment.setenv(name, value)
    with patch('mmfeatdistill.engine.processes.print_log') as said:
        check_restarts('auto', str(tmp_path))
    assert [call.kwargs['level'] for call in said.call_args_list] == [logging.WARNING] * warned


@pytest.mark.parametrize('in_config, option, begun, expected', [
    ({}, 'auto', False, (True, None)),
    (dict(load_from='a.pth'), 'auto', False, (False, 'a.pth')),
    (dict(load_from='a.pth'), 'auto', True, (True, None)),
    (dict(load_from='a.pth'), 'b.pth', True, (True, 'b.pth')),
    (dict(load_from='a.pth'), None, True, (False, 'a.pth'))])
def test_what_has_not_begun_begins_with_the_weights_of_the_config(environment, tmp_path, in_config, option, begun,
                                                                  expected):
    if begun:
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    cfg = configured(tmp_path, in_config, option)
    assert (bool(cfg.get('resume')), cfg.get('load_from')) == expected


def test_a_config_that_resumes_by_itself_may_be_started_again(environment, tmp_path):
    environment.setenv('TORCHELASTIC_MAX_RESTARTS', '2')
    assert configured(tmp_path, dict(resume=True), None).resume
    with pytest.raises(ValueError, match='^--max-restarts 2'):
        configured(tmp_path, {}, None)
