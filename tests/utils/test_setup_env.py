"""The package as mmengine and a script see it: top-level names, registration, and models by the names of configs."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import get_installed_path

import mmfeatdistill
from mmfeatdistill.utils import register_all_modules
from tests.helpers.runs import CONFIGS, STUDENTS

PACKAGE = Path(mmfeatdistill.__file__).parent


@pytest.fixture
def mim(monkeypatch):
    """The configs as an installation has them, where the package is imported from a bare source tree."""
    folder = PACKAGE / '.mim'
    if not folder.is_dir():
        pytest.skip('needs an installation, editable or not')
    return folder


def test_every_public_name_is_there_and_listed():
    from mmfeatdistill.distillers import FeatureDistiller
    from mmfeatdistill.errors import ConfigError
    from mmfeatdistill.taps.reader import TapReader
    from mmfeatdistill.teacher.teacher import Teacher
    assert mmfeatdistill.FeatureDistiller is FeatureDistiller
    assert mmfeatdistill.TapReader is TapReader and mmfeatdistill.Teacher is Teacher
    assert mmfeatdistill.ConfigError is ConfigError and mmfeatdistill.register_all_modules is register_all_modules
    assert set(mmfeatdistill.__all__) <= set(dir(mmfeatdistill))
    assert all(getattr(mmfeatdistill, name) for name in mmfeatdistill.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'mmfeatdistill' has no attribute 'FeatureDistller'"):
        getattr(mmfeatdistill, 'FeatureDist' + 'ller')
    with pytest.raises(ImportError, match='cannot import name'):
        exec('from mmfeatdistill import FeatureDistller')


def test_importing_the_package_imports_nothing_of_it_that_is_not_asked_for():
    code = """if True:
        import sys, mmfeatdistill
        ours = {name.partition('.')[2] for name in sys.modules if name.startswith('mmfeatdistill.')}
        assert ours == {'errors', 'mmcv_ops', 'version', 'zoo', 'zoo.packages'}, ours
        from mmfeatdistill import FeatureDistiller
        from mmfeatdistill.losses import lsh
        assert callable(lsh) and FeatureDistiller.__name__ == 'FeatureDistiller'
    """
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_registering_everything_in_a_process_that_has_imported_nothing():
    """Nor does it import the compiler, which takes ten times as long as the package."""
    code = """if True:
        import sys
        from mmengine.registry import HOOKS, MODELS, DefaultScope
        from mmfeatdistill.utils import register_all_modules
        register_all_modules(init_default_scope=False)
        assert DefaultScope.get_current_instance() is None
        assert MODELS.children['mmfeatdistill'].module_dict['FeatureDistiller']
        assert HOOKS.children['mmfeatdistill'].module_dict['StudentCheckpointHook']
        assert 'torch._dynamo' not in sys.modules
    """
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_scope_is_set_and_a_replaced_one_is_told():
    register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmfeatdistill'
    DefaultScope.get_instance('test', scope_name='mmdet')
    with pytest.warns(UserWarning, match="'mmdet' is replaced by 'mmfeatdistill'"):
        register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmfeatdistill'
    assert MODELS.build(dict(type='SquaredError')).loss_weight == 1


def test_the_folder_of_the_configs_is_the_package_itself():
    from mmengine.config.utils import MODULE2PACKAGE
    assert Path(get_installed_path(MODULE2PACKAGE['mmfeatdistill'])) == PACKAGE


@pytest.mark.parametrize('config', [
    *STUDENTS.values(), 'cifar100/wrn-16-2_1xb128_cifar100.py',
    'voc/deeplabv3plus_r18-d8_4xb4-40k_voc12aug-512x512.py',
    'cityscapes/pspnet_r18-d8_8xb2-40k_cityscapes-512x512.py'])
def test_mmengine_hub_builds_a_student(mim, config):
    assert get_config(f'mmfeatdistill::{config}').model == Config.fromfile(CONFIGS / config).model
    model = get_model(f'mmfeatdistill::{config}')
    assert not type(model).__module__.startswith('mmfeatdistill.')
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000


@pytest.mark.parametrize('task', ['resnet18', 'faster-rcnn_r18', 'pspnet_r18'])
def test_mmengine_hub_builds_a_distiller(mim, tmp_path, monkeypatch, task):
    name = next(CONFIGS.glob(f'channel_mlp/channel-mlp_{task}-w8*_digits.py')).name
    cfg = get_config(f'mmfeatdistill::channel_mlp/{name}')
    monkeypatch.chdir(tmp_path)
    teacher = get_model(f'mmfeatdistill::digits/{Path(cfg.model.teacher.config).name}')
    checkpoint = Path(cfg.model.teacher.checkpoint)
    checkpoint.parent.mkdir(parents=True)
    torch.save(teacher.state_dict(), checkpoint)
    model = get_model(f'mmfeatdistill::channel_mlp/{name}')
    assert isinstance(model, mmfeatdistill.FeatureDistiller)
    own = dict(model.teachers[0].model.state_dict())
    assert all(torch.equal(value, own[key]) for key, value in teacher.state_dict().items())


def test_a_student_without_a_scope_is_the_library_s(mim):
    """Stock configs of mmseg are inherited by their path, so mmengine adds no scope to their models."""
    register_all_modules()
    from tests.helpers.models import segmenter
    student, teacher = segmenter(), segmenter(16)
    del student['_scope_']
    model = MODELS.build(dict(
        type='FeatureDistiller', student=student, teacher=dict(model=teacher, checkpoint=None),
        objectives=dict(match=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Conv1x1'),
                                   loss=dict(type='PKDLoss')))))
    assert type(model.student).__module__.startswith('mmseg.')
