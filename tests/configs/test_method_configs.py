"""The configs of the five methods: they train, resume, and leave the student's own checkpoint."""
import pytest
import torch
from mmengine import registry as root
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from tests.helpers.runs import CONFIGS, small

METHODS = sorted(str(path.relative_to(CONFIGS)) for method in ('channel_mlp', 'fcfd', 'feed', 'lsh', 'ofd')
                 for path in (CONFIGS / method).glob('*_digits.py'))


@pytest.mark.slow
@pytest.mark.parametrize('path', METHODS)
def test_a_method_trains_resumes_and_leaves_a_student(in_digits, tmp_path, path):
    def run(epochs, **options):
        cfg = small(path, tmp_path, train_cfg__max_epochs=epochs, train_cfg__val_interval=9, load_from=None,
                    train_dataloader__num_batch_per_epoch=2, **options)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    first = run(1)
    resumed = run(2, resume=True)
    assert (first.iter, resumed.iter) == (2, 4)
    init_default_scope(resumed.cfg.default_scope)
    student = root.MODELS.build(dict(resumed.cfg.model.student, data_preprocessor=resumed.cfg.get('data_preprocessor'))
                                if 'data_preprocessor' not in resumed.cfg.model.student else resumed.cfg.model.student)
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    student.load_state_dict(checkpoint['state_dict'])
    trained = resumed.model.student.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in student.state_dict().items())
    logged = resumed.message_hub.log_scalars
    names = {name.partition('/')[2].partition('.')[0] for name in logged if '.loss' in name}
    assert names >= {name for name, cfg in resumed.cfg.model.objectives.items() if cfg is not None}
