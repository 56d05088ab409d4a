"""Reading checkpoints: what stock trainings write is read, and nothing that a file names is run."""
import argparse
import hashlib
import io
import os
import pickle
import re
import shutil
import subprocess
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmfeatdistill.checkpoints import safe_load
from mmfeatdistill.checkpoints.load import load_checkpoint, read_checkpoint
from mmfeatdistill.checkpoints.safe_load import CheckpointError, UntrustedCheckpointError, read_checkpoint_file
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.teacher import build_teachers
from tests.helpers.models import build, classifier
from tests.helpers.quick import wait_for
from tests.helpers.runs import DISTILLED, small, train

WEIGHTS = dict(state_dict=dict(weight=torch.arange(3.)))
FORMATS = {'zip': torch.save, 'older': partial(torch.save, _use_new_zipfile_serialization=False)}


@pytest.fixture(params=[True, False], ids=['safe globals', 'narrow pickle'])
def reader(request, monkeypatch):
    """Both ways to read, of which the version of torch chooses one."""
    if request.param and not safe_load._HAS_SAFE_GLOBALS:
        pytest.skip('this torch does not know safe globals')
    monkeypatch.setattr(safe_load, '_HAS_SAFE_GLOBALS', request.param)


@pytest.fixture(autouse=True)
def torch_load_is_given_back():
    before = torch.load, allowed_elsewhere()
    yield
    assert (torch.load, allowed_elsewhere()) == before


def allowed_elsewhere():
    return set(torch.serialization.get_safe_globals()) if safe_load._HAS_SAFE_GLOBALS else None


class Call:
    """Is a call when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __call__(self):
        """Only what is callable is pickled as a call."""

    def __reduce__(self):
        return self.function, self.arguments


# --- what is read ----------------------------------------------------------------------------


def check(file):
    content, expected = read_checkpoint_file(str(file)), torch.load(file, weights_only=False)
    assert content.keys() == expected.keys() and content['meta'] == expected['meta']
    assert {'message_hub', 'state_dict', 'ema_state_dict', 'distiller'} <= content.keys()
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(content[part][key], value) for key, value in expected[part].items())
    if 'optimizer' in expected:
        assert content['optimizer']['param_groups'] == expected['optimizer']['param_groups']
    told, info = (file['message_hub']['runtime_info'] for file in (content, expected))
    assert told == info and 'best_score' in told
    assert expected['message_hub']['log_scalars'], 'there is a history that is left out'


@pytest.mark.parametrize('task', [
    'classification', *(pytest.param(task, marks=pytest.mark.slow) for task in ('faster_rcnn', 'mask_rcnn', 'pspnet'))])
def test_all_files_of_a_training(in_digits, tmp_path, monkeypatch, task):
    cfg = small(DISTILLED[task], tmp_path, train_cfg__max_epochs=1)
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    cfg.optim_wrapper.clip_grad = dict(max_norm=35)
    train(cfg)
    files = [tmp_path / 'epoch_1.pth', *tmp_path.glob('best_*.pth')]
    assert len(files) == 2
    for has_safe_globals in {safe_load._HAS_SAFE_GLOBALS, False}:
        monkeypatch.setattr(safe_load, '_HAS_SAFE_GLOBALS', has_safe_globals)
        for file in files:
            check(file)


@pytest.mark.parametrize('kind', FORMATS)
def test_what_files_of_older_libraries_hold(tmp_path, reader, kind):
    """And numbers and arrays of NumPy, as metrics are."""
    values = [np.float64(0.25), np.float32(0.5), np.int64(3), np.bool_(True), np.str_('a'), np.arange(6).reshape(2, 3),
              np.array([0.5, 1.5], dtype=np.float32), np.array(['a', 'bc']), np.array([True]), {1, 2}, 1j, 'ü', b'ab',
              2 ** 80, torch.Size([2, 3]), torch.float16, ('cat', 'dog'), None]
    content = dict(
        meta=dict(mmcls_version='0.11.0', config='model = dict()', CLASSES=['cat', 'dog'], PALETTE=[[1, 2, 3]], epoch=3,
                  env_info='sys.platform: linux', hook_msgs=dict(best_score=np.float64(71.5)), values=values),
        state_dict=OrderedDict(half=torch.ones(2).half(), brain=torch.ones(2).bfloat16(), count=torch.tensor(3),
                               parameter=torch.nn.Parameter(torch.ones(2, 3).t()), mask=torch.tensor([True])),
        message_hub=dict(log_scalars=OrderedDict(loss=HistoryBuffer([1., 2.], [1, 1])), resumed_keys=dict(loss=True)))
    content['state_dict']._metadata = OrderedDict({'': dict(version=1)})
    FORMATS[kind](content, tmp_path / 'a.pth')
    found = read_checkpoint_file(str(tmp_path / 'a.pth'))
    assert found['state_dict']._metadata == {'': dict(version=1)}
    assert all(torch.equal(found['state_dict'][key], value) and found['state_dict'][key].dtype == value.dtype
               for key, value in content['state_dict'].items())
    for given, read in zip(values, found['meta'].pop('values')):
        assert type(read) is type(given) and np.array_equal(read, given), given
    del content['meta']['values']
    assert found['meta'] == content['meta']


# --- what is refused -------------------------------------------------------------------------


def attacks(marker):
    """What leaves a marker when pickle reads it."""
    code = f'open({str(marker)!r}, "w")'
    # From a class that may be named to all builtins, by the getattr that checkpoints of mmengine name.
    module = Call(getattr, Call(getattr, HistoryBuffer, 'update'), '__globals__')
    builtins = Call(Call(getattr, module, 'get'), '__builtins__')
    return {
        'posix.system': Call(os.system, f'touch {marker}'),
        'subprocess.Popen': Call(subprocess.Popen, ['touch', str(marker)]),
        'eval': Call(eval, code),
        'exec': Call(exec, code),
        'through getattr': Call(Call(Call(getattr, builtins, 'get'), 'eval'), code)}


def evil(marker, name='eval'):
    return dict(state_dict=build(classifier()).state_dict(), meta=attacks(marker)[name])


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('name', ['posix.system', 'subprocess.Popen', 'eval', 'exec', 'through getattr'])
def test_code_is_not_run(tmp_path, reader, kind, name):
    path, marker = str(tmp_path / 'teacher.pth'), tmp_path / 'marker'
    FORMATS[kind](evil(marker, name), path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint_file(path)
    assert repr(path) in str(error.value) and not marker.exists()
    if name != 'through getattr':
        assert isinstance(error.value, UntrustedCheckpointError)
        told = str(error.value).replace('commands.', 'subprocess.').replace('builtins.', '')  # names of Python 2 or 3
        assert f'holds more than weights and plain data: it asks for {name}. ' in told
        assert 'If you trust them, set weights_only=False (for a teacher in model.teacher, ' in told
    read_checkpoint_file(path, weights_only=False)
    wait_for(marker.exists, seconds=20)  # otherwise the attack was harmless anyway


@pytest.mark.skipif(not safe_load._HAS_SAFE_GLOBALS, reason='this torch does not know safe globals')
def test_what_other_code_allows_is_not_allowed_here(tmp_path):
    """As mmengine does whenever it loads."""
    torch.save(evil(tmp_path / 'marker'), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([eval]):
        torch.load(tmp_path / 'a.pth', weights_only=True)
        assert (tmp_path / 'marker').exists()
        (tmp_path / 'marker').unlink()
        with pytest.raises(UntrustedCheckpointError):
            read_checkpoint_file(str(tmp_path / 'a.pth'))
        assert eval in torch.serialization.get_safe_globals()
    assert not (tmp_path / 'marker').exists()


def test_how_to_save_it_anew_is_said_and_works(tmp_path, reader, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(WEIGHTS, args=argparse.Namespace(lr=0.1)), 'teacher.pth')
    with pytest.raises(UntrustedCheckpointError, match=r'it asks for argparse.Namespace\. ') as error:
        read_checkpoint_file('teacher.pth')
    code = re.search(r'save it anew without that: (saved = .*)\.$', str(error.value))[1]
    exec(code, dict(torch=torch))
    assert torch.equal(read_checkpoint_file('weights.pth')['state_dict']['weight'], torch.arange(3.))


def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path, reader):
    torch.save(build(classifier()), tmp_path / 'a.pth')
    with pytest.raises(UntrustedCheckpointError, match='it asks for mmpretrain.models.classifiers.image.ImageClassif'):
        read_checkpoint_file(str(tmp_path / 'a.pth'))


def test_what_may_be_named_cannot_be_changed(tmp_path, reader):
    torch.save(WEIGHTS, tmp_path / 'a.pth')
    for name in ('cmmengine.logging.history_buffer\nHistoryBuffer\n', 'ctorch._utils\n_rebuild_tensor_v2\n'):
        with zipfile.ZipFile(tmp_path / 'a.pth') as before, zipfile.ZipFile(tmp_path / 'b.pth', 'w') as after:
            for file in before.namelist():
                # Sets the attribute `evil` of what is named.
                after.writestr(file, b'\x80\x02' + name.encode() + b'N}X\x04\x00\x00\x00evil\x88s\x86b.'
                               if file.endswith('data.pkl') else before.read(file))
        with pytest.raises(CheckpointError):
            read_checkpoint_file(str(tmp_path / 'b.pth'))
        assert not hasattr(safe_load._LeftOut, 'evil') and not hasattr(torch._utils._rebuild_tensor_v2, 'evil')


@pytest.fixture
def preprocessor():
    return build(classifier()).data_preprocessor


def test_a_teacher_is_read_so_and_otherwise_only_on_request(tmp_path, preprocessor):
    path, marker = str(tmp_path / 'teacher.pth'), tmp_path / 'marker'
    torch.save(evil(marker), path)
    teacher = dict(model=classifier(), checkpoint=path)
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: .*teacher.pth.*set weights_only=False'):
        build_teachers(teacher, preprocessor)
    inherited = classifier()
    inherited.backbone.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: .*teacher.pth.*holds more than weights'):
        build_teachers(dict(model=inherited, checkpoint='init_cfg'), preprocessor)
    with pytest.raises(ValueError, match='holds more than weights'):
        read_checkpoint(path)
    assert not marker.exists()
    (built,) = build_teachers(dict(teacher, weights_only=False), preprocessor)
    assert built.load_report.complete and marker.exists()
    marker.unlink()
    build_teachers(dict(model=inherited, checkpoint='init_cfg', weights_only=False), preprocessor)
    assert marker.exists()


# --- published hashes ------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where torch keeps downloads; what lies there is not downloaded."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    folder = tmp_path / 'torch' / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return folder


def publish(folder):
    torch.save(WEIGHTS, folder / 'a.pth')
    digest = hashlib.sha256((folder / 'a.pth').read_bytes()).hexdigest()[:8]
    return (folder / 'a.pth').rename(folder / f'resnet_20210528-{digest}.pth')


def test_a_file_is_compared_with_the_hash_in_its_name(tmp_path, cache):
    local, downloaded = publish(tmp_path), publish(cache)
    url = f'https://host/{downloaded.name}'
    for source, place in ((str(local), local), (url, downloaded)):
        read_checkpoint_file(source)
        torch.save(dict(WEIGHTS, more=1), place)
        expected, found = place.stem[-8:], hashlib.sha256(place.read_bytes()).hexdigest()[:8]
        with pytest.raises(CheckpointError, match=f'should begin with {expected} and begins with {found}') as error:
            read_checkpoint_file(source)
        assert f'does not end in -{expected}' in str(error.value)
        assert (f'Remove {downloaded} and download it again' in str(error.value)) == (place is downloaded)
        assert repr(source) in str(error.value)
        read_checkpoint_file(str(shutil.copy(place, tmp_path / 'mine.pth')))  # as the message advises


def test_names_of_torchvision_have_their_hash_too(cache):
    from mmengine.runner.checkpoint import get_torchvision_models
    url = get_torchvision_models()['resnet18']
    torch.save(WEIGHTS, cache / url.rpartition('/')[2])
    with pytest.raises(CheckpointError, match=r"'torchvision://resnet18' is not .* begin with f37072fd .* Remove "):
        read_checkpoint_file('torchvision://resnet18')


def test_a_download_that_is_evil(tmp_path, cache):
    torch.save(evil(tmp_path / 'marker'), cache / 'teacher.pth')
    with pytest.raises(UntrustedCheckpointError, match="^'https://host/teacher.pth' holds more than weights"):
        read_checkpoint_file('https://host/teacher.pth')
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('name', ['net-20240131.pth', 'epoch_12-0123abcd.pth', 'best_mIoU_iter_80-0123abcd.pth',
                                  'net-v2.pth', 'net-0123abcde.pth', '0123abcd.pth', 'net-0123abcd.pt'])
def test_names_without_a_hash_of_the_file(tmp_path, name):
    torch.save(WEIGHTS, tmp_path / name)
    assert read_checkpoint_file(str(tmp_path / name))


# --- what is no checkpoint -------------------------------------------------------------------


def scripted(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def zipped(path):
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('weights.npy', b'1')


def cut(path, kind):
    FORMATS[kind](dict(state_dict=dict(weight=torch.ones(1000))), path)
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def bytes_of(content):
    return lambda path: path.write_bytes(content)


FOREIGN = {
    'empty': (bytes_of(b''), "found 0 bytes that begin with b''"),
    'cut': (partial(cut, kind='zip'), r"bytes that begin with b'PK"),
    'older, cut': (partial(cut, kind='older'), r'\w+Error: .*'),
    'web page': (bytes_of(b'<!DOCTYPE html><html>404'), "found 24 bytes that begin with b'<!DOCTYPE html><'"),
    'Git LFS': (bytes_of(b'version https://git-lfs.github.com/spec/v1\n'), "begin with b'version https://'"),
    'safetensors': (bytes_of((64).to_bytes(8, 'little') + b'{"a":{}}'),
                    r'expected a complete file that torch.save has written, .*\{"a":\{\}\}.*or save the weights in it'),
    'TorchScript': (scripted, r'is a TorchScript program, .* torch.save\(torch.jit.load\('),
    'zip': (zipped, r"begin with b'PK"),
    'pickle': (bytes_of(pickle.dumps(dict(model=1))), r'begin with b'),
    'text': (bytes_of(b'hello'), "found 5 bytes that begin with b'hello'. Download or copy it again")}


@pytest.mark.parametrize('what', FOREIGN)
def test_a_file_that_is_no_checkpoint(tmp_path, reader, preprocessor, what):
    write, words = FOREIGN[what]
    write(tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match=f"^model.teacher.checkpoint: '.*a.pth' cannot be read as a checkpoint: "
                                          f'.*{words}'):
        build_teachers(dict(model=classifier(), checkpoint=str(tmp_path / 'a.pth')), preprocessor)


def test_a_graph_a_folder_and_an_optimizer(tmp_path):
    (tmp_path / 'net.onnx').write_bytes(b'\x08\x07\x12\x07pytorch')
    with pytest.raises(CheckpointError, match='net.onnx. cannot be read .* torch.save has written'):
        read_checkpoint_file(str(tmp_path / 'net.onnx'))
    with pytest.raises(FileNotFoundError, match='It is a folder; give a file in it'):
        read_checkpoint_file(str(tmp_path))
    torch.save(dict(optimizer=dict(state={0: dict(momentum=torch.ones(1))})), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"holds no weights: .*, got \['optimizer'\]\. Give the checkpoint of a model"):
        load_checkpoint(build(classifier()), str(tmp_path / 'a.pth'))


def test_a_buffer_of_an_object_store_is_checked_too(tmp_path, monkeypatch):
    """Of which mmengine's loader gives the bytes to torch.load."""
    def load(filename, map_location=None):
        return torch.load(io.BytesIO((tmp_path / 'a.pth').read_bytes()), map_location=map_location)

    monkeypatch.setitem(CheckpointLoader._schemes, r'(\S+\:)?s3://', load)
    torch.save(WEIGHTS, tmp_path / 'a.pth')
    assert read_checkpoint_file('s3://bucket/a.pth').keys() == WEIGHTS.keys()
    with pytest.raises(CheckpointError, match='should begin with 0123abcd .* download it again'):
        read_checkpoint_file('s3://bucket/a-0123abcd.pth')
    torch.save(evil(tmp_path / 'marker'), tmp_path / 'a.pth')
    with pytest.raises(UntrustedCheckpointError, match="^'s3://bucket/a.pth' holds more"):
        read_checkpoint_file('s3://bucket/a.pth')
    assert not (tmp_path / 'marker').exists()
