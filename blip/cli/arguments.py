"""What commands are made of: the arguments that they take, their types, and what is made of those of several."""

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from blip.errors import BlipError
from blip.files import is_text

if TYPE_CHECKING:
    from blip.runs.train import Training

Argument: TypeAlias = Callable[[argparse.ArgumentParser], object]
"""Adds an argument to a command's parser."""
Run: TypeAlias = Callable[[argparse.Namespace], int | None]

DIGITS = 15
"""Most that a number has: all of these are exact everywhere."""


class Command(NamedTuple):
    """A command: its name, what it does in a line, what it takes, and what does it, which returns the exit status."""

    name: str
    text: str
    arguments: tuple[Argument, ...]
    run: Run


def command(name: str, text: str, *arguments: Argument) -> Callable[[Run], Command]:
    """Decorator: make a function of the options a command."""
    return lambda run: Command(name, text, arguments, run)


def argument(*names: str, **how: Any) -> Argument:
    """As argparse's `add_argument` takes it."""
    return lambda parser: parser.add_argument(*names, **how)


def path(text: str) -> Path:
    if "\0" in text or any(len(os.fsencode(part)) > 255 for part in text.split("/")) or len(text) > 4000:
        raise argparse.ArgumentTypeError("a path cannot have a NUL or be that long")
    if not is_text(text):  # it becomes a part of records
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8")
    return Path(text)


def seed(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: expected 0, 1, 2, …")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number: expected 1, 2, 3, …")
    return int(text)


def several(name: str, **how: Any) -> Argument:
    """Of which each use takes one or more, and there may be several."""
    return argument(name, nargs="+", action="extend", **how)


def seeds(purpose: str) -> Argument:
    return several("--seed", dest="seeds", type=seed, help=f"{purpose} (default: 0)")


def folder(name: str, default: str, purpose: str) -> Argument:
    return argument(name, type=path, default=Path(default), help=f"{purpose} (default: %(default)s)")


CHANGES = several(
    "--set", default=[], metavar="KEY=VALUE", help="change keys of the experiment, such as training.epochs=5"
)
VARIATION = several(
    "--vary",
    default=[],
    metavar="KEY=VALUE",
    help="change keys, and name the experiment after them: runs with different values lie beside each other",
)
EXPERIMENT = argument("experiment", type=path, help="experiment file, or one of `blip experiments` by its name")
RUNS = argument("runs", type=path, nargs="+", help="folders that hold run folders")
RAW_DATA = folder("--raw", "data/raw", "raw data, read from or downloaded to")
PREPARED_DATA = folder("--data", "data/prepared", "prepared data")
TRAINING = (
    folder("--checkpoints", "results/checkpoints", "where unfinished runs are kept"),
    RAW_DATA,
    PREPARED_DATA,
    argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: %(default)s)"),
    argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)"),
    argument(
        "--products",
        choices=("auto", "default", "onednn"),
        default="auto",
        help="whose float32 matrix products on the CPU: those of PyTorch's default library, of oneDNN, or (auto) of "
        "the one that is known to be faster; each rounds differently",
    ),
    argument("--again", action="store_true", help="replace finished runs that were trained on other data"),
    argument("--eager", action="store_true", help="no CUDA graphs: on a GPU slower, with the same numbers"),
)
"""What runs are trained with, for `training`."""


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """Of the experiment, by dotted key."""
    from blip.config import parse_override

    return once("--set", map(parse_override, options.set))


def varied(options: argparse.Namespace) -> dict[str, Any]:
    """What makes the experiment a variant, by dotted key."""
    from blip.config import parse_override

    return once("--vary", (parse_override(text, "--vary") for text in getattr(options, "vary", ())))


def once(option: str, given: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by key. Raises BlipError where a key is given twice."""
    values: dict[str, Any] = {}
    for key, value in given:
        if key in values:
            raise BlipError(f"{option} {key}: expected each key once")
        values[key] = value
    return values


def experiment(options: argparse.Namespace, file: Path) -> Any:
    """What an experiment file holds, with the changes and what is varied."""
    from blip.config import experiment_file, load_experiment

    return load_experiment(experiment_file(file), changes(options), varied(options))


def training(options: argparse.Namespace) -> "Training":
    """How runs are trained; sets the number of threads."""
    import torch

    from blip.plan import MOST_THREADS
    from blip.runs.train import Training

    if not 1 <= options.threads <= MOST_THREADS:
        raise BlipError(f"--threads {options.threads}: expected at least 1 and at most {MOST_THREADS}")
    torch.set_num_threads(options.threads)
    return Training(
        raw=options.raw,
        prepared=options.data,
        checkpoints=options.checkpoints,
        device=options.device,
        cuda_graphs=not options.eager,
        products=options.products,
        again=options.again,
    )
