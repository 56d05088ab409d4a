"""What distillation adds to what the processes of a training send each other: the gradients of its connectors."""
import pytest
import torch
import torch.multiprocessing as mp

from tests.distributed.traffic import count
from tests.helpers.runs import DISTILLED

PATH = DISTILLED['classification']


@pytest.mark.slow
def test_a_step_sends_the_gradients_of_student_and_connectors_whatever_the_number_of_processes(digits, tmp_path):
    for world in (1, 2, 4):
        mp.spawn(count, args=(world, PATH, str(tmp_path)), nprocs=world)
    alone, distilled = ([torch.load(tmp_path / f'{world}.pt')[name] for world in (1, 2, 4)]
                        for name in ('alone', 'distilled'))
    assert alone[0] == alone[1] == alone[2] and distilled[0] == distilled[1] == distilled[2]
    assert alone[0]['sent']['gradients'] == alone[0]['parameters']
    # Beside student and connectors there is nothing, of the teacher least of all.
    assert distilled[0]['sent']['gradients'] == distilled[0]['parameters'] > alone[0]['parameters']
    assert distilled[0]['teachers'] > distilled[0]['parameters']
    extra = {name: value for name, value in distilled[0]['sent'].items() if name not in alone[0]['sent']}
    assert not extra, extra
