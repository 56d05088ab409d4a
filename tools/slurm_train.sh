#!/usr/bin/env bash
# Trains on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# With REQUEUE=SECONDS it is a batch job, which so long before its time limit goes back into the queue, and then goes on:
# REQUEUE=120 SRUN_ARGS=--time=4:00:00 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR --resume
set -euo pipefail
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
# shellcheck disable=SC2206 # SRUN_ARGS holds several words on purpose
allocation=(
    -p "$PARTITION"
    --job-name="$JOB_NAME"
    --gres="gpu:$GPUS_PER_NODE"
    --ntasks="$GPUS"
    --ntasks-per-node="$GPUS_PER_NODE"
    --cpus-per-task="$CPUS_PER_TASK"
    ${SRUN_ARGS:-})
training=(python -u "$(dirname "$0")/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "${@:5}")
if [[ -z ${REQUEUE:-} ]]; then
    exec srun "${allocation[@]}" --kill-on-bad-exit=1 "${training[@]}"
fi
if [[ " ${*:5} " != *" --resume "* ]]; then
    echo "REQUEUE=$REQUEUE: Slurm starts the same command again, so add --resume: it begins where there is no" \
        "checkpoint in $WORK_DIR, and goes on from the last one where there is." >&2
    exit 2
fi
mkdir -p "$WORK_DIR"
# The signal goes to the shell of the job, which waits for srun in a way that a signal ends.
sbatch "${allocation[@]}" --requeue --signal="B:USR1@$REQUEUE" --open-mode=append --output="$WORK_DIR/slurm_%j.log" <<END
#!/usr/bin/env bash
trap 'scontrol requeue "\$SLURM_JOB_ID"' USR1
srun --cpus-per-task="$CPUS_PER_TASK" --kill-on-bad-exit=1 $(printf '%q ' "${training[@]}") &
wait \$!
END
