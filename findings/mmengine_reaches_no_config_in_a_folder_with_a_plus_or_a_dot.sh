#!/usr/bin/env bash
# mmengine 0.10.12 (onedl-mmengine) with mmdet 3.5.1 (onedl-mmdetection): 'mmdet::<folder>/<file>.py', by which a config
# inherits a stock one and by which mmengine.hub finds it, takes letters, digits and underscores only in the name of the
# folder. mmdet has two other folders, gn+ws and legacy_1.x: their configs are refused by a message that asks for the
# form that was given. Of gn+ws the metafile writes all paths percent-encoded besides, so that the trained models name
# configs that are not there.
#
# Seen on 2026-12-01, Python 3.11.7:
#   mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py: FasterRCNN
#   mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py: ValueError, just like `mmdet::faster_rcnn/...`
#   mmdet::legacy_1.x/faster-rcnn_r50_fpn_1x_coco_v1.py: ValueError, just like `mmdet::faster_rcnn/...`
#   gn+ws/metafile.yml: 12 of 12 configs are not there, as configs/gn%2Bws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy onedl-mmengine==0.10.12 opencv-python-headless==4.12.0.88
"$folder/venv/bin/pip" install --quiet 'setuptools<81' wheel
"$folder/venv/bin/pip" install --quiet --no-deps --no-build-isolation onedl-mmdetection==3.5.1
cat > "$folder/inherit.py" <<'PYTHON'
import os
import sys
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.fileio import load

mmdet = os.path.dirname(find_spec('mmdet').origin)
outcomes = []
for name in ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
             'legacy_1.x/faster-rcnn_r50_fpn_1x_coco_v1.py'):
    assert os.path.isfile(f'{mmdet}/.mim/configs/{name}'), name
    file = f'{sys.argv[1]}/inheriting.py'
    with open(file, 'w') as opened:
        opened.write(f"_base_ = 'mmdet::{name}'\n")
    try:
        outcomes.append(Config.fromfile(file).model.type)
    except ValueError as error:
        outcomes.append('ValueError' + (', just like `mmdet::faster_rcnn/...`' if 'just like' in str(error) else ''))
    print(f'mmdet::{name}: {outcomes[-1]}')
models = load(f'{mmdet}/.mim/configs/gn+ws/metafile.yml')['Models']
absent = [model['Config'] for model in models if not os.path.isfile(f"{mmdet}/.mim/{model['Config']}")]
print(f'gn+ws/metafile.yml: {len(absent)} of {len(models)} configs are not there, as {absent[0]}')
assert outcomes[0] == 'FasterRCNN' and all(outcome.startswith('ValueError') for outcome in outcomes[1:])
assert all('gn%2Bws' in path for path in absent)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/inherit.py" "$folder"
