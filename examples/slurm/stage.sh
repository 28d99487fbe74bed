#!/bin/bash
# The chunker, the split or the rechunker as an array of SLURM jobs that know nothing of each other: job i of n writes the
# i-th of n equal parts, and the last one to end the index of them all.
#
#   sbatch --array=1-8 examples/slurm/stage.sh dataset_rechunker.py --input-dir data/split --output-dir data/shuffled
#
# What follows the script's name is the stage and its settings. A job that is lost or out of time goes on with its part
# when it is submitted again. Submit from the project's folder.

#SBATCH --job-name=stage
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log

set -euo pipefail
: "${SLURM_ARRAY_TASK_ID:?submit it with --array=1-N}" "${SLURM_ARRAY_TASK_COUNT:?submit it with --array=1-N}"

exec srun "${PYTHON:-.venv/bin/python}" "$@" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers "${SLURM_CPUS_PER_TASK:-2}"
