#!/bin/bash
# The stacked hourglass on MPI-INF-3DHP, from the corpus as it was downloaded to a trained network, in one job that goes
# on by itself (see train.sh).
#
#   sbatch --export=ALL,CORPUS=/data/mpi_inf_3dhp,WORK=/scratch/hg3dhp examples/slurm/hourglass_3dhp.sh
#
# WORK gets the chunks and the logs. What follows the script's name goes to main.py. Each step goes on where it was cut
# off and does nothing once it is done. Submit from the project's folder.

#SBATCH --job-name=hourglass_3dhp
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
: "${CORPUS:?the corpus: --export=ALL,CORPUS=...}" "${WORK:?a folder to work in: --export=ALL,WORK=...}"
python=${PYTHON:-.venv/bin/python}
train=${TRAIN:-S1 S2 S3 S4 S5 S6 S7 S8}
test=${TEST:-TS1 TS2 TS3 TS4 TS5 TS6}

# A network of pictures needs no keypoints, so there is no preprocess.py.
# shellcheck disable=SC2086  # the subjects are words of their own
"$python" dataset_chunker.py --dataset mpi_inf_3dhp --images-path "$CORPUS" --cues optional --frame-step "${STEP:-5}" \
    --subjects $train $test --workers "${SLURM_CPUS_PER_TASK:-2}" --output "$WORK/chunks"
"$python" dataset_split.py --rclone-input-prefix "$WORK/chunks" --rclone-destination-prefix "$WORK/split" \
    --train-subjects "${train// /,}" --test-subjects "${test// /,}" \
    --temp-extraction-dir "$WORK/extract" --staging-dir "$WORK/staging"
"$python" dataset_rechunker.py --input-dir "$WORK/split" --output-dir "$WORK/shuffled" --temp-dir "$WORK/temp"

NAME=${NAME:-hourglass_3dhp} CHUNKS=$WORK/shuffled LOGS=$WORK/logs exec bash examples/slurm/train.sh \
    --config configs/hourglass/mpi_inf_3dhp.yaml "$@"
