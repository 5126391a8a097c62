"""Commands that train."""

import argparse
import sys
from itertools import product
from typing import Any

from blip.cli import arguments
from blip.cli.arguments import argument, changes, command, count, experiment, folder, once, several, training, varied
from blip.errors import BlipError, DivergedError


@command(
    "train",
    "train methods on an experiment; goes on where it was stopped",
    *(arguments.EXPERIMENT, arguments.CHANGES, arguments.VARIATION),
    several("--method", required=True, help="one or more of `blip methods`"),
    arguments.seeds("one run for each"),
    folder("--out", "results/runs", "folder of run folders"),
    argument("--no-weights", action="store_true", help="run folders without the network's weights"),
    *arguments.TRAINING,
)
def train(options: argparse.Namespace) -> None:
    from blip.config import check_effect, check_varied
    from blip.runs.train import train_run

    how = training(options)
    asked = experiment(options, options.experiment)
    for method in options.method:
        asked.run_config(method, 0)  # an unknown one is an error before the first is trained
    check_effect(options.experiment, asked, options.method, changes(options), varied(options))
    check_varied("--vary ", options.method, varied(options))
    runs = list(product(options.method, options.seeds or [0]))
    diverged = []
    for method, seed in runs:
        try:
            print(train_run(asked, method, seed, options.out, how, weights=not options.no_weights))
        except DivergedError as error:
            if len(runs) == 1:
                raise
            diverged.append(error)
            print(f"{error}; runs beside it go on", file=sys.stderr)
    if diverged:
        raise DivergedError(f"{len(diverged)} of {len(runs)} runs diverged, the first: {diverged[0]}")


@command(
    "tune",
    "choose a method's settings by validation images of the first tasks; goes on where it was stopped",
    *(arguments.EXPERIMENT, arguments.CHANGES),
    argument("--method", required=True, help="one of `blip methods`"),
    several(
        "--grid",
        required=True,
        metavar="KEY=VALUE,…",
        help="values of the method's settings, such as strength=1,10,100, or of its training, such as "
        "training.lr=0.01,0.05; of several keys all combinations",
    ),
    arguments.seeds("trained with each"),
    argument("--tasks", type=count, default=3, help="first tasks to train (default: %(default)s)"),
    argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of training images held out where the experiment holds out none (default: %(default)s)",
    ),
    folder("--out", "results/tuned", "folder of tables and trials"),
    *arguments.TRAINING,
)
def tune(options: argparse.Namespace) -> None:
    from blip.config import Tuning, dotted_key, experiment_file
    from blip.runs.tune import at_the_edge, tune
    from blip.schema import validate

    grid = _grid(options.grid)
    given = {"tasks": options.tasks, "validation": options.validation, "seeds": options.seeds or [0]}
    asked = validate(Tuning, given | {"grids": {options.method: grid}}, "tune")
    file, how = experiment_file(options.experiment), training(options)
    table, best = tune(file, changes(options), options.method, asked, options.out, how)
    print(table, *(f"{dotted_key(options.method, key)}={value}" for key, value in best.items()), sep="\n")
    for key in at_the_edge(grid, best):
        print(f"{key}={best[key]} is at the edge of the grid: a better one may lie beyond", file=sys.stderr)


def _grid(texts: list[str]) -> dict[str, Any]:
    """`strength=1,10` as {"strength": [1, 10]}."""
    import yaml

    from blip.schema import parse_yaml

    def parsed(text: str) -> tuple[str, Any]:
        key, separator, values = text.partition("=")
        try:
            if key and separator:
                return key, parse_yaml(f"[{values}]")
        except yaml.YAMLError:
            pass
        raise BlipError(f"--grid {text}: expected KEY=VALUE,VALUE,…, such as strength=1,10,100")

    return once("--grid", map(parsed, texts))


@command(
    "on-gpu",
    "run a command on a GPU that no other job of yours holds",
    argument("--jobs-per-gpu", type=count, default=1, help="that may share one (default: %(default)s)"),
    # At least one; argparse then ends its own options at the first word of the command, with or without `--`.
    argument("command", metavar="COMMAND", help="after --, with its arguments"),
    argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS),
)
def on_gpu(options: argparse.Namespace) -> None:
    from blip.runs.gpus import run_on_gpu

    run_on_gpu([options.command, *options.arguments], options.jobs_per_gpu)
