"""The page of step costs."""
from mmfeatdistill.step_costs.report import step_report


def entry(**changes):
    found = dict(
        config='kd_pair', images=None, teachers=None, options={'model.teacher.checkpoint': 'None'}, device='cpu',
        threads=2, rounds=31, date='2026-11-20', versions='torch 2.11.0',
        ratio=dict(value=1.004, low=0.995, high=1.0131), plain_ratio=dict(value=1.05, low=1.04, high=1.06),
        by_hand=dict(value=1.1, low=1.09, high=1.11),
        difference=0.0, build=dict(ratio=1.02), operators={'aten::mm': 0.5}, peak_mib={},
        seconds=dict(student=0.01, plain_teacher=0.022, teacher=0.02, objectives=0.003, distilled=0.034),
        memory_mib=dict(student=50.0, distilled=80.0, floor=81.0, bare=79.0))
    return found | changes


def table(page, title):
    """The rows of a table, each by column."""
    lines = page.split(f'## {title}\n')[1].split('\n## ')[0].strip().splitlines()
    names, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')]
    return [dict(zip(names, row)) for row in rows]


def test_each_measurement_is_in_the_table_of_its_kind():
    folded = {'model.teacher.acceleration.fuse_conv_bn': 'True', 'model.teacher.config': 'mmpretrain::resnet50'}
    page = step_report([
        entry(), entry(teachers=4, images=[2, 64, 96], date='2026-11-21'),
        entry(options=folded, difference=2e-7, seconds=dict(entry()['seconds'], plain_teacher=0.025))], 'costs.png')
    [plain], [several], [accelerated] = (table(page, title) for title in
                                         ('Each pair', 'Several teachers', 'Other options'))
    assert plain['config, images'] == '`kd_pair`' and plain['distilled, ms'] == '34.0'
    assert plain['ratio'] == '1.004 (0.995 to 1.013)' and plain['rounds'] == '31'
    assert plain['plain teacher, ms'] == '22.0' and plain['by hand'] == '1.100 (1.090 to 1.110)'
    assert plain['memory alone, MiB'] == '50' and plain['over bare'] == '1.013' and plain['build'] == '1.020'
    assert plain['over floor'] == '0.988'
    assert several['config, images'] == '`kd_pair` 2x64x96' and several['teachers'] == '4'
    assert accelerated['options'] == '`fuse_conv_bn=True`' and accelerated['difference'] == '2e-07'
    assert accelerated['plain teacher, ms'] == '25.0' and 'mmpretrain::resnet50' in accelerated['config, images']
    assert page.index('2026-11-20') < page.index('## Several teachers') < page.index('2026-11-21')
    assert '![parts of a distilled step](costs.png)' in page and '`aten::mm` 50%' in page


def test_a_table_without_measurements_is_left_out():
    page = step_report([entry()], 'costs.png')
    assert '## Each pair' in page and '## Several teachers' not in page
