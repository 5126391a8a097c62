"""Commands that train."""

import argparse
import sys
from typing import Any

from blip.cli.arguments import (
    Commands,
    add_command,
    add_experiment,
    add_folder,
    add_seeds,
    add_training,
    add_variation,
    changes,
    count,
    experiment,
    training,
)
from blip.errors import BlipError


def add_train(commands: Commands) -> None:
    parser = add_command(commands, "train", _train, "train methods on an experiment; goes on where it was stopped")
    add_experiment(parser)
    add_variation(parser)
    parser.add_argument("--method", nargs="+", action="extend", required=True, help="one or more of `blip methods`")
    add_seeds(parser, "one run for each")
    add_folder(parser, "--out", "results/runs", "folder of run folders")
    parser.add_argument("--no-weights", action="store_true", help="run folders without the network's weights")
    add_training(parser)


def _train(options: argparse.Namespace) -> None:
    from blip.runs.train import train_run

    arguments = training(options) | {"out": options.out, "weights": not options.no_weights}
    asked = experiment(options, options.experiment)
    for method in options.method:
        asked.run_config(method, 0)  # an unknown one is an error before the first is trained
    for method in options.method:
        for seed in options.seeds or [0]:
            print(train_run(asked, method, seed, **arguments))


def add_tune(commands: Commands) -> None:
    parser = add_command(
        commands,
        "tune",
        _tune,
        "choose a method's settings by validation images of the first tasks; goes on where it was stopped",
    )
    add_experiment(parser)
    parser.add_argument("--method", required=True, help="one of `blip methods`")
    parser.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        required=True,
        metavar="KEY=VALUE,…",
        help="values of the method's settings, such as strength=1,10,100; of several keys all combinations",
    )
    add_seeds(parser, "trained with each")
    parser.add_argument("--tasks", type=count, default=3, help="first tasks to train (default: %(default)s)")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of training images held out where the experiment holds out none (default: %(default)s)",
    )
    add_folder(parser, "--out", "results/tuned", "folder of tables and trials")
    add_training(parser)


def _tune(options: argparse.Namespace) -> None:
    from blip.config import Tuning, experiment_file
    from blip.runs.tune import at_the_edge, tune
    from blip.schema import validate

    grid = _grid(options.grid)
    given = {"tasks": options.tasks, "validation": options.validation, "seeds": options.seeds or [0]}
    asked = validate(Tuning, given | {"grids": {options.method: grid}}, "tune")
    table, best = tune(
        experiment_file(options.experiment),
        changes(options),
        options.method,
        grid,
        asked.seeds,
        tasks=asked.tasks,
        validation=asked.validation,
        out=options.out,
        **training(options),
    )
    print(table, *(f"methods.{options.method}.{key}={value}" for key, value in best.items()), sep="\n")
    for key in at_the_edge(grid, best):
        print(f"{key}={best[key]} is at the edge of the grid: a better one may lie beyond", file=sys.stderr)


def _grid(texts: list[str]) -> dict[str, Any]:
    """`strength=1,10` as {"strength": [1, 10]}."""
    import yaml

    from blip.schema import parse_yaml

    grid = {}
    for text in texts:
        key, separator, values = text.partition("=")
        try:
            grid[key] = parse_yaml(f"[{values}]")
        except yaml.YAMLError:
            separator = ""
        if not separator or not key:
            raise BlipError(f"--grid {text}: expected KEY=VALUE,VALUE,…, such as strength=1,10,100")
    return grid


def add_on_gpu(commands: Commands) -> None:
    parser = add_command(commands, "on-gpu", _on_gpu, "run a command on a GPU that no other job of yours holds")
    parser.add_argument("--jobs-per-gpu", type=count, default=1, help="that may share one (default: %(default)s)")
    # At least one; argparse then ends its own options at the first word of the command, with or without `--`.
    parser.add_argument("command", metavar="COMMAND", help="after --, with its arguments")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _on_gpu(options: argparse.Namespace) -> None:
    from blip.runs.gpus import run_on_gpu

    run_on_gpu([options.command, *options.arguments], options.jobs_per_gpu)


COMMANDS = (add_train, add_tune, add_on_gpu)
