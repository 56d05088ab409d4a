#!/usr/bin/env bash
# onedl-mim 0.5.1: `mim gridsearch` takes values of exactly the type that the config has. An integer for a float, as in
# --optim_wrapper.optimizer.lr 1, ends with "Arg ... not in the config file", though the argument is there; 1.0 is taken.
#
# Seen on 2026-11-30, Python 3.11.7, with onedl-mmdetection 3.5.1 and its configs/_base_/schedules/schedule_1x.py:
#   AssertionError: Arg optim_wrapper.optimizer.lr not in the config file.
#   and with 1.0 the search goes on to the work directory, which the call leaves out: work_dir is not specified
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onedl-mim==0.5.1 setuptools wheel
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onedl-mmengine==0.10.12 opencv-python-headless==4.12.0.88
"$folder/venv/bin/pip" install --quiet --no-deps onedl-mmdetection==3.5.1
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
config=$site/mmdet/.mim/configs/_base_/schedules/schedule_1x.py
search() {
    "$folder/venv/bin/mim" gridsearch onedl-mmdetection "$config" --gpus 0 \
        --search-args "--optim_wrapper.optimizer.lr $1" > "$folder/said" 2>&1 && exit 1
    tail -n 1 "$folder/said"
    grep -q "$2" "$folder/said"
}
search 1 'Arg optim_wrapper.optimizer.lr not in the config file'
search 1.0 'work_dir is not specified'
