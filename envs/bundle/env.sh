# To be sourced in this folder, by any shell: `. ./env.sh`. Then `python3 -m blip.cli …` is the command `blip …`.
# PYTHON: the Python that has PyTorch; SITE: the folder that the packages are unpacked to.
PYTHON="${PYTHON:-python3}"
SITE="${SITE:-$PWD/site}"
"$PYTHON" "$PWD/setup.py" "$SITE" && export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}" PYTHON
