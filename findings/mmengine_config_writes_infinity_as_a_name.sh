#!/usr/bin/env bash
# mmengine 0.10.12 (onedl-mmengine): a config that holds an infinite number, as a margin or a limit may be, is written by
# Config.dump() and by every training's log with the bare word inf, which no Python file defines. The file in the work
# directory, from which commands and inferencers load a trained model, then ends with a NameError; dumped as .json or
# .yaml the same config loads again.
#
# Seen on 2026-11-30, Python 3.11.7:
#   config.py: margin = inf
#   NameError: name 'inf' is not defined
#   config.json, config.yaml: inf inf
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy onedl-mmengine==0.10.12 opencv-python-headless==4.12.0.88
cat > "$folder/dump.py" <<'PYTHON'
import sys

from mmengine.config import Config

folder = sys.argv[1]
cfg = Config(dict(margin=float('inf')))
for ending in ('py', 'json', 'yaml'):
    cfg.dump(f'{folder}/config.{ending}')
print('config.py:', open(f'{folder}/config.py').read().strip())
try:
    Config.fromfile(f'{folder}/config.py')
except NameError as error:
    print(f'NameError: {error}')
else:
    sys.exit('it loads')
others = [Config.fromfile(f'{folder}/config.{ending}').margin for ending in ('json', 'yaml')]
print('config.json, config.yaml:', *others)
assert others == [float('inf')] * 2
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/dump.py" "$folder"
