#!/usr/bin/env bash
# Trains on several GPUs: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On each of several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG GPUS
# Going on by itself when a process dies: TORCHRUN_ARGS=--max-restarts=2 tools/dist_train.sh CONFIG GPUS --resume
set -euo pipefail
CONFIG=$1
GPUS=$2
NNODES=${NNODES:-1}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-29500}
meeting=(--node_rank="${NODE_RANK:-0}" --master_addr="$MASTER_ADDR" --master_port="$PORT")
if [[ ${TORCHRUN_ARGS:-} == *--max[-_]restarts* ]]; then
    # Otherwise a process that is started again finds the addresses of those that are gone.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$PORT" --rdzv_id="$PORT")
    if [[ $NNODES == 1 ]]; then
        meeting+=(--local_addr=127.0.0.1)
    fi
fi
# shellcheck disable=SC2086 # TORCHRUN_ARGS holds several words on purpose
torchrun \
    --nnodes="$NNODES" \
    --nproc_per_node="$GPUS" \
    "${meeting[@]}" \
    ${TORCHRUN_ARGS:-} \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
