"""Commands that are called wrongly, each run in this process by its main()."""
import functools
import inspect
import json
import os
import sys

import torch
from mmengine.registry import DefaultScope

from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS

GOOD, PLAIN = str(CONFIGS / DISTILLED['classification']), str(CONFIGS / STUDENTS['classification'])
UNTAUGHT = ['--cfg-options', 'model.teacher.checkpoint=None']


def write(folder):
    """The files that rows here name."""
    for name, text in {
            'broken.py': 'model = dict(\n', 'divides.py': 'x = 1 / 0\n', 'no_model.py': 'a = 1\n',
            'no_base.py': "_base_ = ['nowhere.py']\n", 'number.py': 'model = 3\n', 'typeless.py': 'model = dict(a=1)\n',
            'no_student.py': "model = dict(type='mmfeatdistill.FeatureDistiller')\n", 'note.txt': 'hello',
            'two_teachers.py': f"_base_ = [{GOOD!r}]\nmodel = dict(teacher=['a.py', 'b.py'])\n",
            'poses.py': f"_base_ = [{GOOD!r}]\ndefault_scope = 'mmpose'\n"}.items():
        (folder / name).write_text(text)
    annotations = folder / 'coco' / 'annotations'
    annotations.mkdir(parents=True)
    (annotations / 'instances_text.json').write_text('no')
    (annotations / 'instances_empty.json').write_text('{}')
    (annotations / 'instances_unknown.json').write_text(json.dumps(dict(
        categories=[dict(id=1, name='a')], annotations=[dict(image_id=1, category_id=9)], images=[])))
    (folder / 'run').mkdir()
    (folder / 'run' / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    torch.save(dict(a=1), folder / 'foreign.pth')
    (folder / 'truncated.pth').write_bytes(b'PK\x03\x04')


script = functools.cache(load_script)


def call(tool, *arguments):
    """Runs a command in the folder of the files."""
    def attempt(files):
        main = script(f'tools/{tool}.py').main
        before, argv = os.getcwd(), sys.argv
        os.chdir(files['folder'])
        sys.argv = [f'{tool.rpartition("/")[2]}.py', *arguments]
        try:
            main(list(arguments)) if inspect.signature(main).parameters else main()
        finally:
            os.chdir(before)
            sys.argv = argv
            DefaultScope._instance_dict.clear()
    return attempt


READERS = dict(train='config', check_teacher='config', balance_losses='config', list_taps='config',
               benchmark_step='config', compare_methods='configs')
DIGITS, COCO = 'dataset_converters/digit_scenes', 'dataset_converters/coco_multi_label'
ROWS = [
    # whatever reads a config
    *((f'{tool}: no such config', call(tool, 'nowhere.py'), [f"{key}: there is no config file 'nowhere.py'", 'looked'])
      for tool, key in READERS.items()),
    *((f'{tool}: config that is no Python', call(tool, 'broken.py'),
       [f"{key}: 'broken.py' cannot be read as a config: SyntaxError"]) for tool, key in READERS.items()),
    *((f'{tool}: config that fails', call(tool, 'divides.py'),
       [f"{key}: 'divides.py' cannot be read as a config: ZeroDivisionError"]) for tool, key in READERS.items()),
    ('train: no such stock config', call('train', 'mmdet::nowhere.py'), ["config: mmdet ships no config 'nowhere.py'"]),
    ('train: no such zoo model', call('train', 'resnet18_8xb32_in2k'),
     ["config: 'resnet18_8xb32_in2k' is neither a file", "Did you mean 'resnet18_8xb32_in1k'"]),
    ('train: no such library', call('train', 'mmfoo::a.py'), ["config: 'mmfoo' is not installed", 'pip install']),
    ('train: no such base', call('train', 'no_base.py'),
     ["config: 'no_base.py' cannot be read as a config: FileNotFoundError", 'nowhere.py']),
    ('train: text as a config', call('train', 'note.txt'), ["config: 'note.txt' cannot be read as a config", 'py/yml']),
    ('train: no student', call('train', 'no_student.py', '--work-dir', 'out'), ['model.student: expected a config']),
    *((f'{tool}: {what}', call(tool, file),
       [f"model: {file} is no distillation config: expected type='mmfeatdistill.FeatureDistiller', got {found}"])
      for tool in ('check_teacher', 'balance_losses', 'benchmark_step')
      for what, file, found in (('no model', 'no_model.py', 'None'), ('a number as a model', 'number.py', '3'),
                                ('nothing is distilled', PLAIN, "'ImageClassifier'"))),
    *((f'list_taps: {what}', call('list_taps', file), [f"model: expected a model config with a 'type', got {found}"])
      for what, file, found in (('no model', 'no_model.py', 'None'), ('a number as a model', 'number.py', '3'))),
    *((f'{tool}: a distiller without a student', call(tool, 'no_student.py'),
       ['model.student: expected a model config, got None', 'no_student.py'])
      for tool in ('check_teacher', 'balance_losses', 'list_taps', 'benchmark_step', 'compare_methods')),
    ('list_taps: a model without a type', call('list_taps', 'typeless.py'),
     ["model: expected a model config with a 'type', got {'a': 1}"]),
    # a config that distills nothing
    ('compare_methods: nothing is distilled', call('compare_methods', PLAIN),
     ['There is no distillation config among those']),
    ('generations: nothing is distilled', call('generations', PLAIN),
     [f'model: {PLAIN} is no distillation config: expected']),
    ('train: no teacher to check', call('train', PLAIN, '--check-teacher'), ['--check-teacher: the config has no']),
    # train, test
    ('train: no config', call('train'), ['the following arguments are required: config']),
    ('train: launcher', call('train', GOOD, '--launcher', 'foo'), ["argument --launcher: invalid choice: 'foo'"]),
    ('train: an option without a value', call('train', GOOD, '--cfg-options', 'model'),
     ["argument --cfg-options: expected KEY=VALUE, such as train_cfg.max_epochs=3, got 'model'"]),
    ('balance_losses: an option without a key', call('balance_losses', GOOD, '--cfg-options', '=3'),
     ["argument --cfg-options: expected KEY=VALUE, such as train_cfg.max_epochs=3, got '=3'"]),
    ('train: no base for the learning rate', call('train', GOOD, '--auto-scale-lr'),
     ['--auto-scale-lr: the config does not say', 'auto_scale_lr.base_batch_size=8']),
    ('train: no checkpoint of the teacher', call('train', GOOD, '--work-dir', 'out'),
     ['model.teacher.checkpoint: there is no checkpoint', 'looked in']),
    ('train: unknown option of the student', call('train', GOOD, '--work-dir', 'out', *UNTAUGHT, 'model.student.foo=3'),
     ['model.student: ', "unexpected keyword argument 'foo'"]),
    *([] if torch.cuda.is_available() else [
        ('train: mixed precision without a GPU', call('train', GOOD, '--amp'), ['--amp: ', 'CPUAmpOptimWrapper']),
        ('train: processes without GPUs', call('train', GOOD, '--launcher', 'mpi'),
         ['--launcher mpi: each process', 'env_cfg.dist_cfg.backend=gloo'])]),
    ('test: no such config', call('test', 'nowhere.py', 'a.pth'), ["config: there is no config file 'nowhere.py'"]),
    ('test: no checkpoint', call('test', PLAIN), ['the following arguments are required: checkpoint']),
    # looking at a teacher, at weights, at taps
    ('balance_losses: ratio', call('balance_losses', GOOD, '--ratio', '0'), ['--ratio: expected a positive number']),
    ('balance_losses: ratio that is no number', call('balance_losses', GOOD, '--ratio', 'nan'),
     ['--ratio: expected a positive']),
    ('balance_losses: key misspelt', call('balance_losses', GOOD, '--cfg-options', 'model.objectivs.x=1'),
     ["model: FeatureDistiller has no 'objectivs'", "'objectives'"]),
    ('list_taps: nothing there', call('list_taps', PLAIN, '--under', 'nekc'),
     ['--under: no place begins so', "Did you mean 'neck'?"]),
    # benchmarks, demo
    ('compare_methods: option misspelt', call('compare_methods', GOOD, '--repot-only'),
     ['unrecognized arguments: --repot-only']),
    ('compare_methods: no such training', call('compare_methods', GOOD, '--only', 'seed_1/foo'),
     ['--only seed_1/foo: there is no such training', 'seed_1/resnet18-w8_digits']),
    ('compare_methods: a training before the one that it needs',
     call('compare_methods', GOOD, '--only', 'seed_1/channel-mlp_resnet18-w8_digits'),
     ['--only seed_1/channel-mlp_resnet18-w8_digits: it needs seed_1/', 'which is not finished']),
    ('compare_methods: no metric',
     call('compare_methods', GOOD, '--cfg-options', 'default_hooks.checkpoint.save_best=None'),
     [os.pardir, 'channel-mlp_resnet18-w8_digits.py: default_hooks.checkpoint.save_best says by which metric',
      'by --cfg-options']),
    ('compare_methods: two kinds', call('compare_methods', GOOD, '--slurm', '--report-only'),
     ['argument --report-only: not allo']),
    ('benchmark_step: two sizes', call('benchmark_step', GOOD, '--images', '1', '8'),
     ['argument --images: expected 3 arguments']),
    ('benchmark_step: random images of a library without labels for them',
     call('benchmark_step', 'poses.py', '--images', '1', '8', '8'),
     ['default_scope: random images can be labeled for mmpretrain, ', "got 'mmpose'"]),
    ('benchmark_step: figures', call('benchmark_step', GOOD, '--json', 'note.txt'),
     ['--json: note.txt holds something else than figures']),
    ('generations: another architecture', call('generations', GOOD),
     ['model.teacher.config: ', 'is another architecture than model.student', "give the student's own config"]),
    ('generations: two teachers', call('generations', 'two_teachers.py'),
     ['model.teacher: a chain of generations has one teacher, got a list of 2']),
    ('demo: task', call('demo', '--task', 'foo'), ["argument --task: invalid choice: 'foo'", 'faster_rcnn']),
    # numbers
    *((f'{tool}: {option} {value}', call(tool, *config, option, value, *others),
       [f'argument {option}: expected a {kind} of at least {least}', f'got {value!r}'])
      for tool, config, option, value, kind, least, *others in (
          ('compare_methods', [GOOD], '--seeds', 'x', 'integer', 0),
          ('compare_methods', [GOOD], '--jobs', '-1', 'integer', 1),
          ('compare_methods', [GOOD], '--threads', '0', 'integer', 1),
          ('compare_methods', [GOOD], '--time', '-1', 'integer', 0),
          ('benchmark_step', [GOOD], '--rounds', '0', 'integer', 1),
          ('benchmark_step', [GOOD], '--warmup', '-1', 'integer', 0),
          ('benchmark_step', [GOOD], '--within', 'nan', 'number', 0),
          ('benchmark_step', [GOOD], '--teachers', '0', 'integer', 1),
          ('benchmark_step', [GOOD], '--images', '-8', 'integer', 1, '8', '8'),
          ('balance_losses', [GOOD], '--iterations', '1', 'integer', 2),
          ('check_teacher', [GOOD], '--images', '5', 'integer', 10),
          ('check_teacher', [GOOD], '--images', '50.5', 'integer', 10),
          ('check_teacher', [GOOD], '--images', 'x', 'integer', 10),
          ('demo', [], '--seed', 'x', 'integer', 0),
          ('demo', [], '--jobs', '0', 'integer', 1),
          ('generations', [GOOD], '--generations', '0', 'integer', 1),
          ('generations', [GOOD], '--seed', '-1', 'integer', 0),
          ('list_taps', [PLAIN], '--size', '0', 'integer', 1),
          ('list_taps', [PLAIN], '--depth', '0', 'integer', 1),
          ('publish', ['run'], '--tolerance', '-0.1', 'number', 0),
          ('train', [GOOD], '--check-teacher', '5', 'integer', 10))),
    # releases, metafiles
    ('publish: no such folder', call('publish', 'nowhere'), ['publish.py: ', 'nowhere has neither best_*.pth']),
    ('publish: checkpoint that is gone', call('publish', 'run'), ['publish.py: ', 'neither best_*.pth']),
    ('publish: no such checkpoint', call('publish', 'run', '--checkpoint', 'a.pth'),
     ["publish.py: there is no checkpoint 'a.pth'"]),
    ('publish: checkpoint of another program', call('publish', 'run', '--checkpoint', 'foreign.pth'),
     ['publish.py: ', 'foreign.pth']),
    ('publish: checkpoint that was truncated', call('publish', 'run', '--checkpoint', 'truncated.pth'),
     ['publish.py: ', 'truncated.pth', 'cannot be read']),
    ('publish: address without a metafile', call('publish', 'run', '--url', 'http://a'), ['--url is written into']),
    ('model_index: no source tree', call('model_index', 'nowhere'), ['nowhere is no source tree', 'configs']),
    ('model_index: a file', call('model_index', 'note.txt'), ['note.txt is no source tree']),
    # data
    ('digits: no folder', call(DIGITS), ['the following arguments are required: out_dir']),
    ('digits: a file as folder', call(DIGITS, 'note.txt'), ['note.txt is not a folder']),
    ('digits: task', call(DIGITS, 'out', '--task', 'foo'), ["argument --task: invalid choice: 'foo'", 'detection']),
    ('digits: seed', call(DIGITS, 'out', '--seed', '-1'), ['--seed must be 0 or more, not -1']),
    ('COCO: no such folder', call(COCO, 'nowhere'), ['[Errno 2] No such file', 'instances_train2014.json']),
    *((f'COCO: annotations, {split}', call(COCO, 'coco', '--splits', split),
       [os.path.join('coco', 'annotations', f'instances_{split}.json') + ' is no annotation file of COCO', word])
      for split, word in (('text', 'JSONDecodeError'), ('empty', 'categories'), ('unknown', '9'))),
]
