#!/bin/sh
# In the new environment, from the folder that Snakemake was started in: the checkout.
set -eu
pip install --require-hashes --no-deps -r envs/cuda.lock.txt
pip install --no-deps .
