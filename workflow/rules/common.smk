# What to run, from the configuration; checked whole before any job starts.
import json
import os
import shlex
from pathlib import Path

from blip.config import GameExperiment, load_suite
from blip.data import dataset_path, needs_pickles
from blip.errors import BlipError
from blip.runs.train import GAME_FILES, RUN_FILES
from snakemake.exceptions import WorkflowError

SETTINGS = {
    "suite",
    "raw",
    "data",
    "results",
    "checkpoints",
    "device",
    "jobs_per_gpu",
    "threads",
    "container",
}
if unknown := set(config) - SETTINGS:
    raise WorkflowError(
        f"config/config.yaml or --config: unknown key {min(unknown)} (known: {', '.join(sorted(SETTINGS))})"
    )
for key, meaning in {"threads": "CPU threads", "jobs_per_gpu": "jobs"}.items():
    if not str(config[key]).isdecimal() or int(config[key]) < 1:
        raise WorkflowError(
            f"config: {key}: expected a number of {meaning}, found {config[key]!r}"
        )

RAW, DATA = Path(config["raw"]), Path(config["data"])
try:
    SUITE, EXPERIMENTS = load_suite(Path(config["suite"]), RAW)
except BlipError as error:
    raise WorkflowError(str(error)) from None
OUT = f"{config['results']}/{SUITE}"

# Where raw data and checkpoints lie and what training runs on. Not params of the rules: they change no number, so they
# retrain nothing. Where results and prepared data lie is taken from a job's outputs and inputs (`above`), which a
# cluster without a shared file system has in other places.
RAW_FOLDER = f"--raw {shlex.quote(str(RAW))}"
CHECKPOINTS = config.get("checkpoints") or f"{OUT}/checkpoints"
TRAINING = (
    f"--checkpoints {shlex.quote(CHECKPOINTS)} --device {shlex.quote(config['device'])}"
)


def outside(folders):
    """Of these folders those that are not below the working directory, as far up as they exist."""
    there = [
        next(p for p in (path, *path.parents) if p.exists())
        for path in (Path(folder).absolute() for folder in folders)
        if not path.is_relative_to(Path.cwd())
    ]
    return [str(path) for path in dict.fromkeys(there) if path != Path("/")]


# Apptainer shows a job the working directory alone; it is told of the other folders by this variable.
binds = [
    *os.environ.get("APPTAINER_BIND", "").split(","),
    *outside([RAW, DATA, config["results"], CHECKPOINTS]),
]
os.environ.update(APPTAINER_BIND=",".join(filter(None, dict.fromkeys(binds))))

# `cuda:1` names a device; otherwise each job is given one that is free.
ON_GPU = (
    f"blip on-gpu --jobs-per-gpu {config['jobs_per_gpu']} -- "
    if config["device"] in ("auto", "cuda")
    else ""
)
# Of every training job: Python and PyTorch can take minutes to load from a cluster's file system.
START_MINUTES = 5

GAMES = {
    name
    for name, planned in EXPERIMENTS.items()
    if isinstance(planned.experiment, GameExperiment)
}
FILES = {name: GAME_FILES if name in GAMES else RUN_FILES for name in EXPERIMENTS}
RESULTS = [
    f"{OUT}/runs/{name}/{method}/seed{seed}/{file}"
    for name, planned in EXPERIMENTS.items()
    for method in planned.methods
    for seed in planned.seeds
    for file in FILES[name]
]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    seed=r"\d+",


def more_each_time(amount):
    """A resource that grows with every attempt; how many there are is the profile's `retries`."""
    return lambda wildcards, attempt: amount * attempt


def run_configs(experiment, seeds):
    """What the numbers of a method's runs depend on; a seed may be the wildcard `{seed}`."""
    return lambda wildcards: "\n".join(
        json.dumps(
            experiment.run_config(
                wildcards.method, int(str(seed).format(**dict(wildcards.items())))
            )
        )
        for seed in seeds
    )


def seed_arguments(planned):
    """The seeds of a training job; it keeps copies of finished runs where it has those of several seeds to delete."""
    if planned.experiment.resources.short:
        return lambda wildcards, output: [*planned.seeds, "--keep"]
    return lambda wildcards, output: wildcards.seed


def above(path, levels):
    """The folder so many levels above a file."""
    return str(Path(path).parents[levels - 1])


def run_folders(files):
    """The run folders that these files are in, each once and in their order."""
    return list(dict.fromkeys(above(path, 1) for path in files))


def overrides(planned):
    """The suite's changes to an experiment as command-line arguments."""
    changes = [f"{key}={json.dumps(value)}" for key, value in planned.overrides.items()]
    return ["--set", *changes] if changes else []


def datasets(planned):
    """The data set files of an experiment."""
    return [str(dataset_path(DATA, source)) for source in planned.experiment.sources]


def splits(planned, seeds):
    """The split files of an experiment; a seed may be the wildcard `{seed}`."""
    name = planned.experiment.name
    return (
        []
        if name in GAMES
        else [f"{DATA}/splits/{name}/seed{seed}.safetensors" for seed in seeds]
    )


def data_folder(planned):
    """Where a training job finds its split, as command-line arguments."""
    if planned.experiment.name in GAMES:
        return []
    return lambda wildcards, input: ["--data", above(input.split[0], 3)]


def raw_counts(source):
    """What mini-ImageNet's raw images are expected to be, as command-line arguments."""
    classes, images = source.raw_classes, source.raw_images_per_class
    arguments = ["--classes", str(classes)] if classes else []
    return arguments + (["--images", str(images)] if images else [])
