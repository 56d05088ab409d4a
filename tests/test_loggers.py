"""What distillation logs arrives in the backends that mmengine has for it."""
from pathlib import Path

import pytest

from tests.helpers.runs import DISTILLED, small, train

CURVES = ('stage4.loss_0', 'stage4.ratio_to_task', 'stage4.cosine_0')


@pytest.fixture(scope='module')
def logged(digits, tmp_path_factory):
    """A training that logs its curves to each backend that is installed."""
    folder = tmp_path_factory.mktemp('logged')
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        patch.setenv('WANDB_MODE', 'offline')
        patch.setenv('WANDB_SILENT', 'true')
        patch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')  # mlflow 3.17 refuses files without it
        if installed('wandb'):
            backends.append(dict(type='WandbVisBackend', init_kwargs=dict(project='digits')))
        if installed('mlflow'):
            backends.append(dict(type='MLflowVisBackend', exp_name='digits', tracking_uri=f'file://{folder}/mlflow'))
        cfg = small(DISTILLED['classification'], folder, train_cfg__max_epochs=1, visualizer__vis_backends=backends)
        cfg.custom_hooks.append(dict(type='mmfeatdistill.AlignmentHook', interval=1))
        train(cfg)
    return folder


def installed(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@pytest.fixture(scope='module')
def curves(logged):
    """The same curves, as mmengine's own file has them."""
    from mmfeatdistill.engine.work_dir import read_scalars
    (lines,) = read_scalars(str(logged))
    return {name: [line[name] for line in lines if 'loss' in line] for name in CURVES}


def test_tensorboard(logged, curves):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    (file,) = logged.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(file)).Reload()
    for name, values in curves.items():
        assert [event.value for event in events.Scalars(name)] == pytest.approx(values, rel=1e-4) and len(values) > 2


def wandb_records(data):
    """The records of an offline run: LevelDB's log format behind seven bytes, in blocks of 32 KiB."""
    position, whole = 7, b''
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = int.from_bytes(data[position + 4:position + 6], 'little'), data[position + 6]
        whole += data[position + 7:position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b''


@pytest.mark.slow
def test_wandb(logged, curves):
    pytest.importorskip('wandb')
    from wandb.proto import wandb_internal_pb2
    (file,) = Path(logged).rglob('*.wandb')
    found = {name: [] for name in CURVES}
    for data in wandb_records(file.read_bytes()):
        for item in wandb_internal_pb2.Record.FromString(data).history.item:
            name = item.key or '.'.join(item.nested_key)
            if name in found:
                found[name].append(float(item.value_json))
    assert {name: pytest.approx(values, rel=1e-4) for name, values in curves.items()} == found


@pytest.mark.slow
def test_mlflow(logged, curves, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    client = mlflow.tracking.MlflowClient(f'file://{logged}/mlflow')
    (run,) = client.search_runs([client.get_experiment_by_name('digits').experiment_id])
    for name, values in curves.items():
        assert [metric.value for metric in client.get_metric_history(run.info.run_id, name)] == pytest.approx(
            values, rel=1e-4)
