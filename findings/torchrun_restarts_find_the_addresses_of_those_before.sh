#!/usr/bin/env bash
# torch 2.14.1: `torchrun --max-restarts` keeps the store in which its processes leave their addresses, and those that it
# starts again use the same keys. One that is quicker than another finds the address of the one that is gone, and fails
# ("Gloo connectFullMesh failed with ... Connection refused"), at once or after its timeout; some find each other all the
# same. Each that fails takes a restart, so that a training that should survive eight deaths does not. Pull request
# 135957 of pytorch/pytorch took the number of the restart out of the keys, as there was to be a new store for each;
# neither the static rendezvous (--master-addr, --master-port) nor the c10d one makes it. With
# TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, the c10d one does.
#
# Here one of two processes ends by a signal whenever both have found each other, and is slow to begin again. Seen on
# 2026-11-30, Python 3.11.7, on a CPU, in two runs:
#   static: they found each other 4 and 4 times of 9
#   c10d: they found each other 3 and 2 times of 9
#   c10d, stores not shared: they found each other 9 and 9 times of 9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
cat > "$folder/work.py" <<'PYTHON'
import os
import signal
import time
from datetime import timedelta

from torch import distributed

restart, rank = int(os.environ['TORCHELASTIC_RESTART_COUNT']), os.environ['RANK']
if restart and rank == '1':
    time.sleep(3)
distributed.init_process_group('gloo', timeout=timedelta(seconds=20))
distributed.barrier()
if rank == '1':
    print('found', flush=True)
    if restart < 8:
        os.kill(os.getpid(), signal.SIGKILL)
distributed.barrier()
distributed.destroy_process_group()
PYTHON
found() {
    GLOO_SOCKET_IFNAME=lo "$folder/venv/bin/torchrun" --nproc-per-node=2 --max-restarts=8 "${@:2}" "$folder/work.py" \
        > "$folder/said" 2>&1 || true
    count=$(grep -c '^found' "$folder/said" || true)
    echo "$1: they found each other $count times of 9"
}
found static --master-addr=127.0.0.1 --master-port=29571
[[ $count -lt 9 ]]
found c10d --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:29572 --local-addr=127.0.0.1
[[ $count -lt 9 ]]
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
found 'c10d, stores not shared' --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:29573 --local-addr=127.0.0.1
[[ $count -eq 9 ]]
