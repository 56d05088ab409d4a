import pytest
import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from mmfeatdistill.checkpoints.load import load_checkpoint
from tests.helpers.models import build, classifier


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False))


NAMES = ['0.weight', '0.bias', '1.weight', '1.bias', '1.running_mean', '1.running_var', '2.weight']


@pytest.fixture
def weights():
    """Of another model, and a copy of them as a reference."""
    return {name: torch.randn_like(value) if value.is_floating_point() else value
            for name, value in model().state_dict().items()}


def load(tmp_path, content):
    path = str(tmp_path / 'weights.pth')
    torch.save(content, path)
    target = model()
    return load_checkpoint(target, path), target.state_dict(), path


@pytest.mark.parametrize('wrap', [
    lambda w: w, lambda w: dict(state_dict=w, meta=dict(epoch=3)), lambda w: dict(model=w, optimizer={}),
    lambda w: dict(model_state_dict=w)], ids=['bare', 'state_dict', 'model', 'model_state_dict'])
def test_layouts_of_checkpoints(tmp_path, weights, wrap):
    report, loaded, path = load(tmp_path, wrap(weights))
    assert report.complete and report.matched == len(NAMES)
    assert (report.source, report.missing, report.unexpected, report.mismatched) == (path, (), (), ())
    assert all(torch.equal(loaded[name], weights[name]) for name in NAMES)
    assert str(report) == f'{path}: 7 tensors loaded'


def test_saved_while_wrapped_for_several_processes(tmp_path, weights):
    report, loaded, _ = load(tmp_path, {f'module.{name}': value for name, value in weights.items()})
    assert report.complete and not report.unexpected
    assert all(torch.equal(loaded[name], weights[name]) for name in NAMES)


def test_missing(tmp_path, weights):
    del weights['0.bias'], weights['2.weight']
    report, loaded, path = load(tmp_path, weights)
    assert not report.complete
    assert report.missing == ('0.bias', '2.weight') and report.matched == len(NAMES) - 2
    assert torch.equal(loaded['0.weight'], weights['0.weight'])
    assert str(report) == f'{path}: 5 tensors loaded; 2 missing (0.bias, 2.weight)'


def test_unexpected(tmp_path, weights):
    weights.update({f'head.{i}': torch.ones(1) for i in range(5)})
    report, _, path = load(tmp_path, weights)
    assert report.complete, 'the teacher may be a part of what the checkpoint holds'
    assert report.unexpected == tuple(f'head.{i}' for i in range(5)) and report.matched == len(NAMES)
    assert str(report) == f'{path}: 7 tensors loaded; 5 unexpected (head.0, head.1, head.2 and 2 more)'


def test_another_shape(tmp_path, weights):
    weights['0.weight'], weights['0.bias'] = torch.ones(6, 3, 1, 1), torch.ones(6)
    report, loaded, path = load(tmp_path, weights)
    assert not report.complete
    assert report.mismatched == ('0.weight: file [6, 3, 1, 1], model [4, 3, 1, 1]', '0.bias: file [6], model [4]')
    assert not report.missing and report.matched == len(NAMES) - 2
    assert torch.equal(loaded['2.weight'], weights['2.weight']), 'the rest is loaded'
    assert '2 of another shape (0.weight: file [6, 3, 1, 1], model [4, 3, 1, 1], 0.bias' in str(report)


def test_everything_at_once(tmp_path, weights):
    weights['extra'] = weights.pop('1.weight')
    weights['0.bias'] = torch.ones(6)
    report, _, _ = load(tmp_path, weights)
    assert (report.matched, report.missing, report.unexpected) == (len(NAMES) - 2, ('1.weight',), ('extra',))
    assert report.mismatched == ('0.bias: file [6], model [4]',)


def test_batch_counters_may_be_missing(tmp_path, weights):
    del weights['1.num_batches_tracked']
    report, _, _ = load(tmp_path, weights)
    assert report.complete and report.matched == len(NAMES)


def test_a_real_model(tmp_path):
    source, target = build(classifier()), build(classifier())
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    report = load_checkpoint(target, str(tmp_path / 'a.pth'))
    assert report.complete and not report.unexpected
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values()))


@pytest.mark.parametrize('content, given', [
    (dict(meta=dict(), optimizer=dict()), r"\['meta', 'optimizer'\]"), (dict(state_dict=dict()), r'\[\]'),
    ({}, r'\[\]'), ([1, 2], 'list'), (torch.ones(3), 'Tensor'), (dict(state_dict={'a': 'b'}), r"\['a'\]")])
def test_no_weights_inside(tmp_path, content, given):
    with pytest.raises(ValueError, match=f"holds no weights: expected a 'state_dict' of tensors, got {given}"):
        load(tmp_path, content)


def test_no_such_file(tmp_path):
    path = str(tmp_path / 'nowhere.pth')
    with pytest.raises(FileNotFoundError, match='there is no checkpoint .*nowhere.pth'):
        load_checkpoint(model(), path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(model(), str(tmp_path))


@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda data: b'', lambda data: b'<html>404'])
def test_a_damaged_file(tmp_path, weights, damage):
    path = tmp_path / 'weights.pth'
    torch.save(weights, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match='weights.pth.* cannot be read as a checkpoint: '):
        load_checkpoint(model(), str(path))


@pytest.mark.parametrize('url', ['https://host/a.pth', 's3://bucket/a.pth', 'torchvision://resnet18'])
def test_addresses_go_to_mmengine(monkeypatch, weights, url):
    asked = []
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint',
                        lambda filename, map_location: asked.append((filename, map_location)) or weights)
    assert load_checkpoint(model(), url).complete
    assert asked == [(url, 'cpu')]


def test_a_failed_download(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', fail)
    with pytest.raises(ValueError, match="'https://host/a.pth' cannot be read as a checkpoint: OSError: no network"):
        load_checkpoint(model(), 'https://host/a.pth')
