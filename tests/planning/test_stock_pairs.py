"""Thirty pairs of stock configs: the command writes a config that makes a step, or refuses with the reason."""
import pytest
from mmengine.config import Config

from tests.planning.pairs import LIBRARIES, ROWS


def test_there_are_thirty_of_three_libraries():
    assert len(ROWS) == 30 and min(map(len, LIBRARIES.values())) >= 7
    assert len({row.method for row in ROWS.values()}) >= 10


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS.values(), ids=ROWS)
def test_stock_pairs(distill, row):
    arguments = [row.student, row.teacher, '--method', row.method, '--out', 'pair.py']
    if row.refused is not None:
        assert row.refused in distill.refusal(*arguments, '--dry-run', '--teacher-checkpoint', 'none')
        return
    assert 'makes a step on random images' in distill.dry(*arguments)
    cfg = Config.fromfile('pair.py')
    assert cfg.model.type == 'mmfeatdistill.FeatureDistiller' and cfg.model.objectives
    assert cfg.model.teacher.config == row.teacher
