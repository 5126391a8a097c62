"""What several commands take: types of arguments, the arguments, and what is made of them."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from blip.errors import BlipError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a command is added to."""
MOST_THREADS = 256
"""With more than a machine lets a process have, PyTorch ends in a segmentation fault."""
DIGITS = 15
"""Most that a number has: all of these are exact everywhere."""


def add_command(commands: Commands, name: str, run: Callable[[Any], int | None], text: str) -> argparse.ArgumentParser:
    """The parser of a command that does `run`, given the options; what that returns is the exit status."""
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(run=run)
    return parser


def path(text: str) -> Path:
    if "\0" in text or any(len(os.fsencode(part)) > 255 for part in text.split("/")) or len(text) > 4000:
        raise argparse.ArgumentTypeError("a path cannot have a NUL or be that long")
    return Path(text)


def seed(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: expected 0, 1, 2, …")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number: expected 1, 2, 3, …")
    return int(text)


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """For `experiment`."""
    parser.add_argument("experiment", type=path, help="experiment file, or one of `blip experiments` by its name")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change keys of the experiment, such as training.epochs=5",
    )


def add_variation(parser: argparse.ArgumentParser) -> None:
    """What `experiment` takes besides."""
    parser.add_argument(
        "--vary",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change keys, and name the experiment after them: runs with different values lie beside each other",
    )


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """Of the experiment, by dotted key."""
    from blip.config import parse_override

    return dict(map(parse_override, options.set))


def experiment(options: argparse.Namespace, file: Path) -> Any:
    """What an experiment file holds, with the changes and what is varied."""
    from blip.config import experiment_file, load_experiment, parse_override

    varied = dict(parse_override(text, "--vary") for text in getattr(options, "vary", ()))
    return load_experiment(experiment_file(file), changes(options), varied)


def add_seeds(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--seed", dest="seeds", type=seed, nargs="+", action="extend", help=f"{purpose} (default: 0)")


def add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=path, nargs="+", help="folders that hold run folders")


def add_data_folders(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, "--raw", "data/raw", "raw data, read from or downloaded to")
    add_folder(parser, "--data", "data/prepared", "prepared data")


def add_folder(parser: argparse.ArgumentParser, name: str, default: str, purpose: str) -> None:
    parser.add_argument(name, type=path, default=Path(default), help=f"{purpose} (default: %(default)s)")


def add_training(parser: argparse.ArgumentParser) -> None:
    """What runs are trained with, for `training`."""
    add_folder(parser, "--checkpoints", "results/checkpoints", "where unfinished runs are kept")
    add_data_folders(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--products",
        choices=("auto", "default", "onednn"),
        default="auto",
        help="whose float32 matrix products on the CPU: those of PyTorch's default library, of oneDNN, or (auto) of "
        "the one that is known to be faster; each rounds differently",
    )
    parser.add_argument("--again", action="store_true", help="replace finished runs that were trained on other data")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs: on a GPU slower, with the same numbers")


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `train_run`; sets the number of threads."""
    import torch

    if not 1 <= options.threads <= MOST_THREADS:
        raise BlipError(f"--threads {options.threads}: expected at least 1 and at most {MOST_THREADS}")
    torch.set_num_threads(options.threads)
    return {
        "raw": options.raw,
        "prepared": options.data,
        "checkpoints": options.checkpoints,
        "device": options.device,
        "cuda_graphs": not options.eager,
        "products": options.products,
        "again": options.again,
    }
