# What to run, from the configuration; checked whole before any job starts.
import json
import shlex
from pathlib import Path

from blip.config import load_suite
from blip.data import dataset_path, needs_pickles
from blip.errors import BlipError
from blip.runs import RUN_FILES
from snakemake.exceptions import WorkflowError

SETTINGS = {"suite", "raw", "data", "results", "device", "threads", "container"}
if unknown := set(config) - SETTINGS:
    raise WorkflowError(
        f"config/config.yaml or --config: unknown key {min(unknown)} (known: {', '.join(sorted(SETTINGS))})"
    )
if not str(config["threads"]).isdecimal() or int(config["threads"]) < 1:
    raise WorkflowError(
        f"config: threads: expected a number of CPU threads, found {config['threads']!r}"
    )

RAW, DATA = Path(config["raw"]), Path(config["data"])
try:
    SUITE, EXPERIMENTS = load_suite(Path(config["suite"]), RAW)
except BlipError as error:
    raise WorkflowError(str(error)) from None
OUT = f"{config['results']}/{SUITE}"

# Where things lie and what they run on. Not params of the rules: they change no number, so they retrain nothing.
FOLDERS = f"--raw {shlex.quote(str(RAW))} --data {shlex.quote(str(DATA))}"
TRAINING = (
    f"--out {shlex.quote(OUT)}/runs --checkpoints {shlex.quote(OUT)}/checkpoints"
    f" --device {shlex.quote(config['device'])}"
)

RUNS = [
    f"{OUT}/runs/{name}/{method}/seed{seed}"
    for name, planned in EXPERIMENTS.items()
    for method in planned.methods
    for seed in planned.seeds
]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    seed=r"\d+",


def overrides(planned):
    """The suite's changes to an experiment as command-line arguments."""
    changes = [f"{key}={json.dumps(value)}" for key, value in planned.overrides.items()]
    return ["--set", *changes] if changes else []


def datasets(planned):
    """The data set files of an experiment."""
    return [
        str(dataset_path(DATA, source)) for source in planned.experiment.data.sources
    ]


def raw_counts(source):
    """What mini-ImageNet's raw images are expected to be, as command-line arguments."""
    classes, images = source.raw_classes, source.raw_images_per_class
    arguments = ["--classes", str(classes)] if classes else []
    return arguments + (["--images", str(images)] if images else [])
