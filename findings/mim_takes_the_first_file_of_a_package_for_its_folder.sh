#!/usr/bin/env bash
# onedl-mim 0.5.1 takes the folder of the first file in a package's RECORD for the package. pip sorts RECORD, and
# 'mmdet-3.3.0.dist-info/...' stands before 'mmdet/...', as '-' comes before '/'. So of every distribution that is called
# like its module, such as mmdet 3.3.0 from a wheel, mim says that it has no metafile, no config and no script, which
# all lie in mmdet/.mim. An editable installation is found by another way, and so are the onedl-* packages, whose
# distributions have other names than their modules.
#
# Seen on 2026-11-30, Python 3.11.7, pip 24.0: `mim search mmdet --model yolox`
#   FileNotFoundError: .../mmdet-3.3.0.dist-info/model-index.yml or .../model_zoo.yml is not found
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onedl-mim==0.5.1 setuptools wheel
"$folder/venv/bin/pip" install --quiet --no-deps mmdet==3.3.0
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
test -f "$site/mmdet/.mim/model-index.yml"
"$folder/venv/bin/mim" search mmdet --model yolox > "$folder/said" 2>&1 && exit 1
tail -n 1 "$folder/said"
grep -q 'mmdet-3.3.0.dist-info/model-index.yml.*is not found' "$folder/said"
