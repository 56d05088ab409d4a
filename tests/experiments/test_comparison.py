"""From distillation configs to experiments; nothing is trained here."""
import pytest

from mmfeatdistill.experiments.comparison import compare, method_name, student_name
from mmfeatdistill.experiments.scheduler import with_needs
from tests.helpers.quick import finish
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS

BASE = CONFIGS / DISTILLED['classification']
TEACHER = CONFIGS / 'digits' / 'resnet18-w32_digits.py'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a config that inherits the classification pair, in the current directory."""
    monkeypatch.chdir(tmp_path)

    def write_config(name: str, *lines: str) -> str:
        (tmp_path / f'{name}.py').write_text('\n'.join([f'_base_ = {str(BASE)!r}', *lines]))
        return f'{name}.py'
    return write_config


def directories(comparisons) -> list[str]:
    return [e.work_dir for e in with_needs(e for comparison in comparisons for e in comparison.experiments)]


def test_teacher_student_and_distilled_of_each_seed():
    comparisons = compare([str(CONFIGS / DISTILLED['pspnet'])], [1, 2], 'out')
    names = ['pspnet_r18-w32-d8_digits', 'pspnet_r18-w8-d8_digits', 'channel-mlp_pspnet_r18-w8-d8_digits']
    assert directories(comparisons) == [f'out/seed_{seed}/{name}' for seed in (1, 2) for name in names]
    for comparison in comparisons:
        assert {e.config.randomness.seed for e in comparison.experiments} == {comparison.seed}
        assert comparison.distilled.needs == {'model.teacher.checkpoint': comparison.teachers[0]}
        assert comparison.metric == 'mIoU'
        student = comparison.student.load({})
        assert student.model == comparison.distilled.config.model.student
        for plain in (student, comparison.teachers[0].config):
            assert [hook.type for hook in plain.custom_hooks] == ['mmfeatdistill.ExactResumeHook']


def test_the_teachers_checkpoint_is_the_one_trained_here():
    (comparison,) = compare([str(BASE)], [1], 'out')
    cfg = comparison.distilled.load({'model.teacher.checkpoint': 'mine.pth'})
    assert cfg.model.teacher.checkpoint == 'mine.pth' and TEACHER.samefile(cfg.model.teacher.config)


def test_equal_trainings_of_several_configs_are_one(write):
    first, second = compare([write('a_pair', 'num_irrelevant = 3'), write('b_pair', 'model = dict(objectives=dict('
                            "stage4=dict(loss=dict(loss_weight=1.0))))")], [1], 'out')
    assert first.student is second.student and first.teachers == second.teachers
    assert first.distilled is not second.distilled
    assert first.distilled.fingerprint != second.distilled.fingerprint
    assert first.student.work_dir == 'out/seed_1/pair'


def test_different_students_of_one_name_are_told_apart_and_keep_their_folders(write):
    same, other = write('a_pair'), write('b_pair', 'optim_wrapper = dict(optimizer=dict(lr=1.0))')
    first, second = compare([same, other], [1], 'out')
    assert first.student.work_dir == 'out/seed_1/pair' and first.teachers == second.teachers
    name, _, suffix = second.student.work_dir.rpartition('-')
    assert name == 'out/seed_1/pair' and len(suffix) == 6
    (second_seed, ) = {c.student.work_dir for c in compare([same, other], [2], 'out') if c.config == other}
    assert second_seed.endswith(suffix), 'the same for all seeds'
    (alone,) = compare([other], [1], 'out')
    alone.student.claim()
    finish(alone.student, 1.0)
    first, second = compare([same, other], [1], 'out')
    assert second.student.work_dir == 'out/seed_1/pair' and second.student.result() is not None
    assert first.student.work_dir != second.student.work_dir


def test_equal_teachers_of_an_ensemble_have_seeds_of_their_own(write):
    teacher = f'dict(config={str(TEACHER)!r}, checkpoint="x.pth")'
    (one, other) = compare([write('feed_pair', f'model = dict(teacher=[{teacher}, {str(TEACHER)!r}, {teacher}])'),
                            write('one_pair')], [3], 'out')
    assert [e.work_dir for e in one.teachers] == [
        f'out/seed_{seed}/resnet18-w32_digits' for seed in (1, 2, 3)]
    assert [e.config.randomness.seed for e in one.teachers] == [1, 2, 3]
    assert list(one.distilled.needs) == [f'model.teacher.{i}.checkpoint' for i in range(3)]
    cfg = one.distilled.load({key: key for key in one.distilled.needs})
    assert [t.checkpoint for t in cfg.model.teacher] == list(one.distilled.needs)
    assert other.teachers == one.teachers[2:] and other.student is one.student


@pytest.mark.parametrize('teacher', [
    dict(config=str(TEACHER), checkpoint=None), dict(config=str(TEACHER), checkpoint='https://there/is.pth'),
    dict(config='mmpretrain::resnet/resnet18_8xb32_in1k.py', checkpoint='zoo'), 'resnet18_8xb32_in1k',
    dict(model=dict(type='ResNet', depth=18), checkpoint='x.pth')])
def test_other_teachers_are_left_as_they_are(write, teacher):
    base = {} if isinstance(teacher, str) else dict(_delete_=True)
    config = write('a_pair', f'model = dict(teacher={dict(teacher, **base) if base else [teacher]!r})')
    (comparison,) = compare([config], [1], 'out')
    assert comparison.teachers == () and comparison.distilled.needs == {}
    given = comparison.distilled.config.model.teacher
    assert given == (teacher if base else [dict(config=teacher)])


def test_a_stage_before_is_trained_first(write):
    write('lsh-stage-1_pair', 'train_cfg = dict(max_epochs=2)')
    last = write('lsh_pair', "load_from = 'work_dirs/lsh-stage-1_pair/epoch_2.pth'")
    (comparison,) = compare([last], [5], 'out')
    stage = comparison.distilled.needs['load_from']
    assert stage.work_dir == 'out/seed_5/lsh-stage-1_pair' and stage.config.randomness.seed == 5
    assert list(stage.needs.values()) == list(comparison.teachers), 'with the same teacher'
    assert comparison.student.config.load_from is None
    (elsewhere,) = compare([write('b_pair', "load_from = 'work_dirs/unknown/epoch_2.pth'")], [5], 'out')
    assert elsewhere.distilled.config.load_from == 'work_dirs/unknown/epoch_2.pth'
    assert set(elsewhere.distilled.needs) == {'model.teacher.checkpoint'}


def test_hooks_that_act_on_a_distillation_go_with_it(write):
    hook = "dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', stop=2)"
    config = write('a_pair', f"custom_hooks = [dict(type='EMAHook'), {hook}]")
    (comparison,) = compare([config], [1], 'out')
    kept = [hook.type for hook in comparison.student.config.custom_hooks]
    assert kept == ['EMAHook', 'mmfeatdistill.ExactResumeHook']
    assert len(comparison.distilled.config.custom_hooks) == 3


def test_options_are_everybodys(write):
    (comparison,) = compare([write('a_pair')], [1], 'out', {'train_cfg.max_epochs': 77})
    assert {e.config.train_cfg.max_epochs for e in comparison.experiments} == {77}


def test_what_counts_for_a_fingerprint(write, tmp_path):
    plain = compare([write('a_pair')], [1], 'out')[0]
    assert compare(['a_pair.py'], [1], 'elsewhere')[0].distilled.fingerprint == plain.distilled.fingerprint
    write('a_pair', "train_dataloader = dict(dataset=dict(data_root='here'))")
    before = compare(['a_pair.py'], [1], 'out')[0].student.fingerprint
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'arguments.json').write_text('other data')
    assert len({plain.student.fingerprint, before, compare(['a_pair.py'], [1], 'out')[0].student.fingerprint}) == 3
    seeds = compare(['a_pair.py'], [1, 2], 'out')
    assert seeds[0].student.fingerprint != seeds[1].student.fingerprint


def test_other_configs_are_refused(write):
    student = str(CONFIGS / STUDENTS['classification'])
    with pytest.raises(ValueError, match='is no distillation config'):
        compare([student], [1], 'out')
    config = write('a_pair', "default_hooks = dict(checkpoint=dict(save_best='auto'))")
    with pytest.raises(ValueError, match=r"a_pair.py: default_hooks.checkpoint.save_best .* got 'auto'"):
        compare([config], [1], 'out')[0].metric  # noqa: B018


def test_names_of_students():
    assert [student_name(f'configs/x/{name}.py') for name in ('kd_r18_digits', 'plain')] == ['r18_digits', 'plain']


def test_students_alone_of_several_teachers_are_one(write):
    teachers = [str(TEACHER), str(TEACHER.with_name('resnet18-w8_digits.py'))]
    configs = [write(f'kd_pair_from-{name}_2x', f'model = dict(teacher=dict(config={teacher!r}))')
               for name, teacher in zip(('big', 'equal'), teachers)]
    first, second = compare(configs, [1], 'out')
    assert first.student is second.student and first.student.work_dir == 'out/seed_1/pair_2x'
    assert [method_name(config) for config in configs] == ['kd from big', 'kd from equal']
