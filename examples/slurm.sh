#!/bin/bash
# GPU workers on SLURM, as many as the array has. Create the search once, then send them:
#   optuna-aes search TABLE … --storage "$AES_STORAGE" --name ads --no-run
#   sbatch --export=ALL,AES_STORAGE,AES_NAME=ads slurm.sh
# AES_STORAGE is the database's URL; AES_DATA, a folder or s3://BUCKET/FOLDER, where the encoded dataset lies elsewhere.
#SBATCH --job-name=optuna-aes
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
exec optuna-aes worker --storage "$AES_STORAGE" --name "$AES_NAME" ${AES_DATA:+--data "$AES_DATA"} --quiet
