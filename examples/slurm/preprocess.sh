#!/bin/bash
# Preprocessing as an array of SLURM jobs that know nothing of each other: job i of n does the i-th of n equal parts.
#
#   sbatch --array=1-8 examples/slurm/preprocess.sh data/human36m/images data/human36m/processed --batch-size 16
#
# What follows the script's name goes to preprocess.py. A job that is lost or out of time does its part on when it is
# submitted again; the last one to end gathers the reports in preprocess_report.json. Submit from the project's folder.

#SBATCH --job-name=preprocess
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log

set -euo pipefail
: "${SLURM_ARRAY_TASK_ID:?submit it with --array=1-N}" "${SLURM_ARRAY_TASK_COUNT:?submit it with --array=1-N}"

exec srun "${PYTHON:-.venv/bin/python}" preprocess.py "$@" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --num-workers "${SLURM_CPUS_PER_TASK:-2}"
