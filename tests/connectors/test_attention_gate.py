"""AttnFD's gate and loss, against its authors' code."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import constant_init

from mmfeatdistill.connectors import AttentionGate
from mmfeatdistill.connectors.attention_gate import BlockAttention
from mmfeatdistill.losses import normalized_distance, refined
from mmfeatdistill.taps.feature_map import FeatureShape, shape_of

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'attnfd.npz')
G = {name: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files}
LAYERS = {'channels.0': 'ChannelGate.mlp.1', 'channels.2': 'ChannelGate.mlp.3',
          'positions.0': 'SpatialGate.spatial.conv', 'positions.1': 'SpatialGate.spatial.bn'}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def fill(module, layers, prefix):
    """Gives layers the authors' weights."""
    with torch.no_grad():
        for own, theirs in layers.items():
            for name, parameter in module.get_submodule(own).named_parameters():
                parameter.copy_(G[f'{prefix}{theirs}.{name}'])
    return module


def test_values_and_gradients_of_the_authors():
    losses, students = [], []
    for place in range(3):
        student, teacher = G[f'student{place}'].clone().requires_grad_(), G[f'teacher{place}']
        connector = AttentionGate(shape_of(student), shape_of(teacher))
        fill(connector[0], LAYERS, f'student_gate{place}.')
        fill(connector[1], {'0': '0', '1': '1'}, f'connector{place}.')
        gate = fill(BlockAttention(teacher.shape[1]), LAYERS, f'teacher_gate{place}.')
        refined_student = connector[0](student)
        close(refined_student, G[f'student_refined{place}'])
        norm = connector[0].positions[1]
        for name in ('running_mean', 'running_var'):
            close(getattr(norm, name), G[f'student_gate{place}.SpatialGate.spatial.bn.{name}_after'])
        connected, target = connector[1](refined_student), gate(teacher)
        close(connected, G[f'student_connected{place}'])
        close(target, G[f'teacher_refined{place}'])
        losses.append(2 * normalized_distance(connected, target))
        students.append(student)
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(G['loss_lambda2'].item(), rel=1e-6)
    for place, student in enumerate(students):
        close(student.grad, G[f'grad_student{place}'])


def test_the_gate_without_parameters_of_the_authors():
    close(refined(G['free_in']), G['free_out'])


def test_every_part_of_the_gate_is_trained():
    connector = AttentionGate(shape_of(G['student0']), shape_of(G['teacher0']))
    fill(connector[0], LAYERS, 'student_gate0.')  # of so narrow a perceptron, a random unit may never be active
    normalized_distance(connector(G['student0']), G['teacher0']).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in connector.parameters())


def test_any_size_of_map():
    connector = AttentionGate(FeatureShape(6, 5, 7), FeatureShape(10, 3, 4)).eval()
    for size in ((5, 7), (9, 2), (1, 1)):
        assert connector(torch.randn(1, 6, *size)).shape == (1, 10, *size)


def test_a_gate_that_says_nothing_halves_twice():
    gate = BlockAttention(16).eval()
    constant_init(gate.channels[2], 0)
    constant_init(gate.positions[1], 0)
    torch.testing.assert_close(gate(G['free_in']), G['free_in'] / 4)
