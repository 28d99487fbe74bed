#!/bin/bash
# Training on several machines without a scheduler: start this on each of them, with the same words but for NODE.
#
#   on the first:   NODE=0 NODES=2 HEAD=first.example:29500 examples/torchrun/train.sh lifter --chunks-dir /data/mocap
#   on the second:  NODE=1 NODES=2 HEAD=first.example:29500 examples/torchrun/train.sh lifter --chunks-dir /data/mocap
#
# HEAD: the first machine, and a port of it that is free. PER_NODE: processes of each, one for each GPU (default 1). The
# first word names the run, what follows goes to main.py; all machines must see the chunks and logs/ (LOGS names another
# folder). If one machine is lost, all end: start it on all again, and the run goes on from its last checkpoint.

set -euo pipefail
: "${NODE:?which of the machines this is, from 0}" "${NODES:?how many there are}" "${HEAD:?HOST:PORT of the first}"
name=${1:?the run is called so}
logs=${LOGS:-logs}
python=${PYTHON:-.venv/bin/python}

begin=(--exp "$name")
if compgen -G "$logs/$name/checkpoints/*.pth" >/dev/null; then begin=(--resume "$name"); fi

exec "$python" -m torch.distributed.run --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "${PER_NODE:-1}" \
    --master-addr "${HEAD%:*}" --master-port "${HEAD##*:}" \
    main.py --log-dir "$logs" --checkpoint-interval 500 "${begin[@]}" "${@:2}"
