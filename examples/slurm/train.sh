#!/bin/bash
# Training on one or more nodes of a SLURM cluster, one task for each GPU. Goes on by itself when the job's time is up,
# or a node failed: the job is put into the queue again and resumes from its last checkpoint.
#
#   sbatch --export=ALL,NAME=lifter,CHUNKS=/data/mocap examples/slurm/train.sh --config configs/lifter.yaml
#
# What follows the script's name goes to main.py. Submit from the project's folder.

#SBATCH --job-name=humanpose3d
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@180

set -euo pipefail
: "${NAME:?the run is called so: --export=ALL,NAME=...}" "${CHUNKS:?--chunks-dir: --export=ALL,CHUNKS=...}"
logs=${LOGS:-logs}
python=${PYTHON:-.venv/bin/python}

# Three minutes before the end SLURM sends USR1 to this script alone.
trap 'echo "time is up: $NAME goes back into the queue"; scontrol requeue "$SLURM_JOB_ID"; exit 0' USR1

begin=(--exp "$NAME") # also where a job ended before its first checkpoint
if compgen -G "$logs/$NAME/checkpoints/*.pth" >/dev/null; then begin=(--resume "$NAME"); fi

# In the background, so that the trap acts at once. An error of one task ends all: the others would wait for it.
srun --kill-on-bad-exit=1 "$python" main.py --chunks-dir "$CHUNKS" --log-dir "$logs" --devices "${SLURM_NTASKS_PER_NODE:-1}" \
    --num-nodes "${SLURM_NNODES:-1}" --checkpoint-interval 500 "${begin[@]}" "$@" &
wait $!
