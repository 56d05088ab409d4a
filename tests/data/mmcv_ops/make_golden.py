"""Writes what mmcv's compiled operators give: run in an environment with a compiled mmcv, from the root of the clone.

    PYTHONPATH=. python tests/data/mmcv_ops/make_golden.py
"""
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from mmfeatdistill.mmcv_ops.completion import mmcv_folder, state
from tests.mmcv_ops.cases import cases

HERE = Path(__file__).parent


def main() -> None:
    """One file for each subject; inputs that cases share are stored once."""
    if state(mmcv_folder()) != 'compiled':
        raise SystemExit('The mmcv of this environment has no compiled operators, which are what is recorded.')
    torch.set_num_threads(1)
    files: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for case in cases():
        arrays = files[case.name.split('_')[0]]
        for name, tensor in case.inputs.items():
            value = tensor.numpy()
            same = next((key for key, array in arrays.items()
                         if '/in/' in key and array.dtype == value.dtype and np.array_equal(array, value)), None)
            arrays[f'{case.name}/in/{name}'] = value if same is None else np.array(same)
        for name, tensor in case.run(case.inputs).items():
            arrays[f'{case.name}/out/{name}'] = tensor.numpy()
    for subject, arrays in files.items():
        np.savez_compressed(HERE / f'{subject}.npz', **arrays)
    print(sum(file.stat().st_size for file in HERE.glob('*.npz')), 'bytes')


if __name__ == '__main__':
    main()
