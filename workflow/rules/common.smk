# What to run, from the configuration; checked whole before any job starts. What is asked here is answered in blip/plan.py.
import os
import re
import shlex

from blip.errors import BlipError
from blip.plan import Plan, experiment_arguments, folders_of, parent
from snakemake.exceptions import WorkflowError

try:
    PLAN = Plan(config)
except (BlipError, OSError) as error:
    raise WorkflowError(str(error)) from None

# Where raw data and checkpoints lie and what training runs on. Not params of the rules: they change no number, so they
# retrain nothing. Where results and prepared data lie is taken from a job's outputs and inputs (`parent`), which a
# cluster without a shared file system has in other places.
RAW_FOLDER = f"--raw {shlex.quote(str(PLAN.raw))}"
TRAINING = (
    f"--checkpoints {shlex.quote(PLAN.checkpoints)} --device {shlex.quote(config['device'])}"
    f" --products {shlex.quote(config['products'])}"
)

# Apptainer shows a job the working directory alone; it is told of the other folders by this variable.
os.environ.update(APPTAINER_BIND=PLAN.bind(os.environ))

# `cuda:1` names a device; otherwise each job is given one that is free.
ON_GPU = (
    f"blip on-gpu --jobs-per-gpu {config['jobs_per_gpu']} -- "
    if config["device"] in ("auto", "cuda")
    else ""
)


wildcard_constraints:
    drawn="|".join(map(re.escape, PLAN.drawn)),
    split="|".join(map(re.escape, PLAN.splits)),
    seed=r"\d+",


def more_each_time(amount):
    """A resource that grows with every attempt; how many there are is the profile's `retries`."""
    return lambda wildcards, attempt: amount * attempt
