#!/bin/sh
# In the new environment, from the folder that Snakemake was started in: the checkout. Editable, since an environment is
# not made again when the checkout changes: jobs run the code that planned them.
set -eu
pip install --require-hashes --no-deps -r envs/cuda.lock.txt
pip install --no-deps --editable .
