#!/bin/sh
# The check of a GPU (benchmarks/README.md) with nothing but this folder and a Python that has PyTorch:
#   sh run.sh FOLDER [OPTIONS]      FOLDER: where the report goes; PYTHON and SITE as in env.sh
# Reads no network, installs nothing, and writes to FOLDER, SITE and the system's temporary folder alone.
set -eu
[ $# -ge 1 ] || { echo 'usage: sh run.sh FOLDER [OPTIONS]' >&2; exit 2; }
case $1 in /*) ;; *) folder="$PWD/$1"; shift; set -- "$folder" "$@" ;; esac
cd "$(dirname "$0")"
. ./env.sh
export PYTHONDONTWRITEBYTECODE=1
exec "$PYTHON" benchmarks/gpu_check "$@" --raw raw
