#!/usr/bin/env bash
# Trains on several GPUs: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On each of several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG GPUS
set -euo pipefail
CONFIG=$1
GPUS=$2
# shellcheck disable=SC2086 # TORCHRUN_ARGS holds several words on purpose
torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    ${TORCHRUN_ARGS:-} \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
