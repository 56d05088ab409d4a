"""The stand-ins agree with what mmcv's compiled operators gave, through mmcv's public functions."""
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.mmcv_ops.cases import cases

FOLDER = Path(__file__).parents[1] / 'data' / 'mmcv_ops'
NAMES = sorted({key.split('/')[0] for file in FOLDER.glob('*.npz') for key in np.load(file).files})
# Of the largest number of an array: the order of summation differs, and corners of boxes are computed in single
# precision by the compiled operators.
TOLERANCE = 2e-6
LOOSER = {'box': 2e-5}


@functools.cache
def recorded(subject: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f'{subject}.npz') as arrays:
        return {key: arrays[key] for key in arrays.files}


@functools.cache
def known() -> dict:
    return {case.name: case for case in cases()}


def test_every_case_is_recorded():
    assert set(NAMES) == set(known())


@pytest.mark.parametrize('name', NAMES)
def test_agrees_with_compiled(name, stand_ins):
    subject = name.split('_')[0]
    arrays = recorded(subject)
    inputs, expected = {}, {}
    for key, array in arrays.items():
        case, kind, part = key.split('/')
        if case == name and kind == 'in':
            inputs[part] = torch.from_numpy(arrays[str(array)] if array.dtype.kind == 'U' else array)
        elif case == name:
            expected[part] = torch.from_numpy(array)
    found = known()[name].run(inputs)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        assert found[part].dtype == value.dtype and found[part].shape == value.shape, part
        if value.is_floating_point() and value.numel():
            error = (found[part] - value).abs().max() / value.abs().max().clamp(min=1)
            assert error <= LOOSER.get(subject, TOLERANCE), (part, error)
        else:
            assert torch.equal(found[part], value), part
