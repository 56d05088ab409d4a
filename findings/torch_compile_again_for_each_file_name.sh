#!/usr/bin/env bash
# torch 2.14.1 with mmengine 0.10.12 (onedl-mmengine): a compiled function that moves data samples to a device, as every
# data preprocessor of mmengine does, is compiled again for each name of a file in their metadata, though nothing in it
# depends on the name: BaseDataElement.to() copies its metadata by copy.deepcopy, which asks for id() of each string, and
# the compiler makes that identity a condition of its graph. Of eight batches of a training, each is compiled, until the
# limit of recompilations is reached. With torch 2.11.0 there is one graph for all.
#
# Seen on 2026-11-30, Python 3.11.7, on a CPU, the number of graphs after each of four calls:
#   torch 2.14.1: the same name [1, 1, 1, 1], another name in each [1, 2, 3, 4]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy onedl-mmengine==0.10.12 opencv-python-headless==4.12.0.88
cat > "$folder/count.py" <<'PYTHON'
import torch
from mmengine.structures import BaseDataElement


@torch.compile(backend='eager')
def prepare(images, samples):
    return images / 255, [sample.to('cpu') for sample in samples]


def graphs(name):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    seen = []
    for number in range(4):
        prepare(torch.ones(1, 3, 4, 4), [BaseDataElement(metainfo=dict(img_path=name(number), img_shape=(4, 4)))])
        seen.append(torch._dynamo.utils.counters['stats']['unique_graphs'])
    return seen


same, others = graphs(lambda number: 'image.png'), graphs(lambda number: f'image_{number}.png')
print(f'torch {torch.__version__}: the same name {same}, another name in each {others}')
assert same == [1, 1, 1, 1] and others == [1, 2, 3, 4]
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/count.py"
