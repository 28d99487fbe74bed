#!/bin/bash
# Trains the package's own checkpoints anew, lifter.pt and lifter_window27.pt, from motion capture.
#
#   HUMANPOSE3D_MOCAP=/data/cmu_mocap examples/default_checkpoints.sh WORK
#
# HUMANPOSE3D_MOCAP: a folder of *_mocap_*.npz (docs/CORPORA.md, "mocap"). WORK, made here, gets 7 GB of chunks and the
# two networks, the second from the first. On two cores with AMX each takes one to two hours; on others several times that.

set -euo pipefail
: "${HUMANPOSE3D_MOCAP:?the folder of the motion capture files}"
work=${1:?a folder to work in}
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
mkdir -p "$work/motion"
cd "$work"

if [ ! -e mocap/train/index.json ]; then
    ln -sf "$(cd "$HUMANPOSE3D_MOCAP" && pwd)"/*_mocap_*.npz motion/
    [ -e motion/studio_mocap_10fps.npz ] || "$python" -m humanpose3d fake mocap motion
    chunk=("$python" "$here/dataset_chunker.py" --dataset mocap --annotations-path motion --window 27)
    "${chunk[@]}" --subjects train --cameras 24 --output unshuffled
    "${chunk[@]}" --subjects validation --cameras 8 --output mocap/val
    "$python" "$here/dataset_rechunker.py" --input-dir unshuffled --output-dir mocap/train
    rm -rf unshuffled
fi

# Two processes of one thread each: networks as small as these leave a second thread little to do.
export OMP_NUM_THREADS=1
train() { # name, steps, further flags
    if [ -e "$1.pt" ]; then return; fi
    last=logs/$1/checkpoints/last.pth
    go=(--exp "$1")
    if [ -f "$last" ]; then go=(--resume "$1"); fi
    "$python" "$here/main.py" --config "$here/configs/lifter.yaml" --chunks-dir mocap \
        --device cpu --devices 2 --num-workers 1 --epochs 1000 --max-steps "$2" "${@:3}" "${go[@]}"
    "$python" -m humanpose3d strip "logs/$1/checkpoints/best_model.pth" "$1.pt"
}
train lifter 16000
train lifter_window27 9000 --window 27 --checkpoint lifter.pt
