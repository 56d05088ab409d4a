"""A teacher that runs in parallel with the student."""
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.side_stream import SideStream
from tests.helpers.models import classification_batch, classifier, distiller, losses_of, match, teacher

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='streams are those of CUDA devices')
BATCH = classification_batch((64, 64), (64, 64))


def distilled(**acceleration):
    torch.manual_seed(0)
    return distiller(classifier(), teacher(classifier(16), acceleration=acceleration),
                     dict(stage=match('backbone.layer4')))


def test_training_without_a_cuda_device_is_refused():
    model = distilled(side_stream=True)
    with pytest.raises(ConfigError, match=r"model\.teacher\.acceleration\.side_stream: needs a CUDA device, but this "
                                          r"training runs on 'cpu'"):
        losses_of(model, BATCH)


def test_the_trained_student_can_be_run_anywhere():
    model = distilled(side_stream=True).eval()
    data = model.data_preprocessor(BATCH, False)
    assert len(model(**data, mode='predict')) == 2


class Recorded:
    """Notes in which order streams are asked for what."""

    def __init__(self, monkeypatch) -> None:
        self.log: list = []
        main = self._stream('main')
        monkeypatch.setattr(torch.cuda, 'Stream', lambda device: self._stream('side'))
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: main)
        monkeypatch.setattr(torch.cuda, 'stream', self._entered)

    def tensor(self, name):
        return SimpleNamespace(device='cuda:0', record_stream=lambda s: self.log.append(f'{name} kept for {s.name}'))

    def _stream(self, name):
        return SimpleNamespace(name=name, wait_stream=lambda other: self.log.append(f'{name} waits for {other.name}'))

    @contextmanager
    def _entered(self, stream):
        self.log.append(f'{stream.name} begins')
        yield
        self.log.append(f'{stream.name} ends')


def test_each_stream_waits_for_what_it_reads(monkeypatch):
    recorded, side = Recorded(monkeypatch), SideStream()
    for _ in range(2):
        with side.parallel(recorded.tensor('batch')):
            recorded.log.append('teacher')
        recorded.log.append('student')
        side.join([recorded.tensor('feature')])
    assert recorded.log == 2 * [
        'side waits for main', 'batch kept for side', 'side begins', 'teacher', 'side ends', 'student',
        'main waits for side', 'feature kept for main']


@needs_cuda
def test_on_a_device_the_losses_are_those_of_a_teacher_that_runs_before():
    models = [distilled(**options).cuda() for options in (dict(), dict(side_stream=True))]
    large = classification_batch(*[(256, 256)] * 32)
    for _ in range(5):
        before, beside = ({name: float(value) for name, value in losses_of(model, large).items()} for model in models)
        assert beside == pytest.approx(before, rel=1e-5)
