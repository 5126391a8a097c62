"""The command line: parses, calls, prints."""

import argparse
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, NoReturn, get_args, get_origin

from blip.errors import BlipError

MOST_THREADS = 256
"""With more than a machine lets a process have, PyTorch ends in a segmentation fault."""
DIGITS = 15
"""Most that a number has: all of these are exact everywhere."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where what was checked failed, 2 for bad input, 130 when
    interrupted, 141 with no reader left.

    Whatever goes wrong is told in one line; with BLIP_TRACEBACK in the environment by a traceback.
    """
    _complete_streams()
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
        return 141
    except Exception as error:
        if os.environ.get("BLIP_TRACEBACK"):
            raise
        print(f"blip: {_in_one_line(error)}", file=sys.stderr)
        return _refused()
    except KeyboardInterrupt:
        print("blip: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return status or 0


def _complete_streams() -> None:
    """Where output was closed it goes nowhere, and what a terminal cannot show is escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _in_one_line(error: Exception) -> str:
    """What went wrong; of what nobody foresaw also its kind, and how to see where."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, BlipError):
        text = " ".join(str(error).split("\n"))
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "not enough memory"
    else:
        text = f"{type(error).__name__}: {text}"
    hint = "" if isinstance(error, BlipError | OSError | MemoryError) else " (BLIP_TRACEBACK=1 shows where)"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + hint


def _refused() -> int:
    """The exit status, once what was printed is out; where it cannot be, it is dropped."""
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="blip",
        description="Continual learning via bit-level information preserving: data, training, tables, figures.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_data_commands(commands)
    _add_train_command(commands)
    _add_tune_command(commands)
    _add_result_commands(commands)
    _add_on_gpu_command(commands)

    methods = commands.add_parser("methods", help="list the methods and their settings")
    methods.set_defaults(run=_methods)

    doctor = commands.add_parser("doctor", help="say what this machine has: versions, GPUs, optional packages")
    doctor.set_defaults(run=_doctor)

    check = commands.add_parser("check", help="check experiment files without running anything")
    check.add_argument("experiment", type=_path, nargs="+")
    _add_set(check)
    _add_vary(check)
    check.set_defaults(run=_check)
    return parser


def _add_data_commands(commands: Any) -> None:
    data = commands.add_parser("data", help="prepare data sets and the splits of an experiment")
    data.add_argument("experiment", type=_path, help="experiment file, such as config/experiments/mnist5.yaml")
    _add_data_folders(data)
    data.add_argument("--seed", type=_seed, nargs="+", action="extend", help="one split for each (default: 0)")
    data.add_argument("--source", help="make this data set alone, anew, and no split")
    _add_set(data)
    _add_vary(data)
    data.set_defaults(run=_data)

    mini = commands.add_parser("miniimagenet", help="MI_raw.zip or MI_raw/<class>/<image> to train.pkl and test.pkl")
    mini.add_argument("--raw", type=_path, default=Path("data/raw"), help="folder of MI_raw (default: %(default)s)")
    mini.add_argument(
        "--out",
        type=_path,
        default=Path("data/prepared/miniimagenet"),
        help="folder to write to (default: %(default)s)",
    )
    mini.add_argument("--classes", type=_count, default=100, help="that there must be (default: %(default)s)")
    mini.add_argument("--images", type=_count, default=600, help="that a class must have (default: %(default)s)")
    mini.set_defaults(run=_miniimagenet)

    stand_in = commands.add_parser("stand-in", help="generate small images that stand in for the raw data sets")
    stand_in.add_argument("raw", type=_path, help="folder to write them to; give it as --raw afterwards")
    stand_in.set_defaults(run=_stand_in)


def _add_train_command(commands: Any) -> None:
    train = commands.add_parser("train", help="train methods on an experiment; goes on where it was stopped")
    train.add_argument("experiment", type=_path, help="experiment file, such as config/experiments/mnist5.yaml")
    train.add_argument("--method", nargs="+", action="extend", required=True, help="one or more of `blip methods`")
    train.add_argument("--seed", type=_seed, nargs="+", action="extend", help="one run for each (default: 0)")
    train.add_argument(
        "--out",
        type=_path,
        default=Path("results/runs"),
        help="folder of run folders (default: %(default)s)",
    )
    train.add_argument("--no-weights", action="store_true", help="run folders without the network's weights")
    _add_training(train)
    _add_vary(train)
    train.set_defaults(run=_train)


def _add_tune_command(commands: Any) -> None:
    tune = commands.add_parser(
        "tune", help="choose a method's settings by validation images of the first tasks; goes on where it was stopped"
    )
    tune.add_argument("experiment", type=_path, help="experiment file, such as config/experiments/mnist5.yaml")
    tune.add_argument("--method", required=True, help="one of `blip methods`")
    tune.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        required=True,
        metavar="KEY=VALUE,…",
        help="values of the method's settings, such as strength=1,10,100; of several keys all combinations",
    )
    tune.add_argument("--seed", type=_seed, nargs="+", action="extend", help="trained with each (default: 0)")
    tune.add_argument("--tasks", type=_count, default=3, help="first tasks to train (default: %(default)s)")
    tune.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of training images held out where the experiment holds out none (default: %(default)s)",
    )
    tune.add_argument(
        "--out", type=_path, default=Path("results/tuned"), help="folder of tables and trials (default: %(default)s)"
    )
    _add_training(tune)
    tune.set_defaults(run=_tune)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """What runs are trained with."""
    parser.add_argument(
        "--checkpoints",
        type=_path,
        default=Path("results/checkpoints"),
        help="(default: %(default)s)",
    )
    _add_data_folders(parser)
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
    _add_set(parser)


def _add_result_commands(commands: Any) -> None:
    for name, run, text in (
        (
            "tables",
            _tables,
            "accuracy and forgetting tables from run folders (CSV, Markdown, LaTeX)",
        ),
        ("figures", _figures, "figures from run folders (PDF and PNG)"),
        ("games", _games, "a page of moving pictures from run folders on games (HTML and GIF)"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("runs", type=_path, nargs="+", help="folders that hold run folders")
        command.add_argument("--out", type=_path, required=True, help="folder to write to")
        command.set_defaults(run=run)
        if name == "figures":
            command.add_argument("--parameter", help="LAYER:INDEX of the weight whose bits are shown")
            command.add_argument("--only", metavar="NAME", help="draw this experiment, or group of variants, alone")

    audit = commands.add_parser("audit", help="check that no anchor of BLIP's runs moved further than it may")
    audit.add_argument("runs", type=_path, nargs="+", help="folders that hold run folders")
    audit.set_defaults(run=_audit)


def _add_on_gpu_command(commands: Any) -> None:
    on_gpu = commands.add_parser("on-gpu", help="run a command on a GPU that no other job of yours holds")
    on_gpu.add_argument("--jobs-per-gpu", type=_count, default=1, help="that may share one (default: %(default)s)")
    # At least one; argparse then ends its own options at the first word of the command, with or without `--`.
    on_gpu.add_argument("command", metavar="COMMAND", help="after --, with its arguments")
    on_gpu.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    on_gpu.set_defaults(run=_on_gpu)


def _path(text: str) -> Path:
    if "\0" in text or any(len(os.fsencode(part)) > 255 for part in text.split("/")) or len(text) > 4000:
        raise argparse.ArgumentTypeError("a path cannot have a NUL or be that long")
    return Path(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: expected 0, 1, 2, …")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number: expected 1, 2, 3, …")
    return int(text)


def _add_data_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raw",
        type=_path,
        default=Path("data/raw"),
        help="raw data, read from or downloaded to (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=_path,
        default=Path("data/prepared"),
        help="prepared data (default: %(default)s)",
    )


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change keys of the experiment, such as training.epochs=5",
    )


def _add_vary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vary",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change keys, and name the experiment after them: runs with different values lie beside each other",
    )


def _experiment(options: argparse.Namespace, path: Path) -> Any:
    from blip.config import load_experiment, parse_override

    varied = dict(parse_override(text, "--vary") for text in options.vary)
    return load_experiment(path, dict(map(parse_override, options.set)), varied)


def _data(options: argparse.Namespace) -> None:
    from blip.data import prepare_dataset, prepare_experiment

    experiment = _experiment(options, options.experiment)
    if not experiment.sources:
        raise BlipError(f"{options.experiment}: it needs no data")
    if options.source is None:
        for seed in options.seed or [0]:
            print(prepare_experiment(experiment.split_name, experiment.data, seed, options.raw, options.data))
        return
    sources = {source.name: source for source in experiment.sources}
    if options.source not in sources:
        raise BlipError(f"--source {options.source}: {options.experiment} has {', '.join(sources)}")
    print(prepare_dataset(sources[options.source], options.raw, options.data))


def _miniimagenet(options: argparse.Namespace) -> None:
    from blip.data.miniimagenet import build_pickles

    paths = build_pickles(options.raw, options.out, classes=options.classes, images_per_class=options.images)
    print(*paths, sep="\n")


def _stand_in(options: argparse.Namespace) -> None:
    from blip.data import write_stand_ins

    print(*write_stand_ins(options.raw), sep="\n")


def _training(options: argparse.Namespace) -> dict[str, Any]:
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


def _train(options: argparse.Namespace) -> None:
    from blip.runs.train import train_run

    training = _training(options) | {"out": options.out, "weights": not options.no_weights}
    experiment = _experiment(options, options.experiment)
    for method in options.method:
        experiment.run_config(method, 0)  # an unknown one is an error before the first is trained
    for method in options.method:
        for seed in options.seed or [0]:
            print(train_run(experiment, method, seed, **training))


def _tune(options: argparse.Namespace) -> None:
    import yaml

    from blip.config import Tuning, parse_override
    from blip.runs.tune import at_the_edge, tune
    from blip.schema import parse_yaml, validate

    grid = {}
    for text in options.grid:
        key, separator, values = text.partition("=")
        try:
            grid[key] = parse_yaml(f"[{values}]")
        except yaml.YAMLError:
            separator = ""
        if not separator or not key:
            raise BlipError(f"--grid {text}: expected KEY=VALUE,VALUE,…, such as strength=1,10,100")
    given = {"tasks": options.tasks, "validation": options.validation, "seeds": options.seed or [0]}
    asked = validate(Tuning, given | {"grids": {options.method: grid}}, "tune")
    table, best = tune(
        options.experiment,
        dict(map(parse_override, options.set)),
        options.method,
        grid,
        asked.seeds,
        tasks=asked.tasks,
        validation=asked.validation,
        out=options.out,
        **_training(options),
    )
    print(table, *(f"methods.{options.method}.{key}={value}" for key, value in best.items()), sep="\n")
    for key in at_the_edge(grid, best):
        print(f"{key}={best[key]} is at the edge of the grid: a better one may lie beyond", file=sys.stderr)


def _tables(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_tables

    print(write_tables(load_runs(options.runs), options.out))


def _figures(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_figures

    for path in write_figures(load_runs(options.runs), options.out, options.parameter, options.only):
        print(path)


def _games(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.game_page import write_game_page

    print(write_game_page(load_runs(options.runs), options.out))


def _audit(options: argparse.Namespace) -> int:
    from blip.results import load_runs
    from blip.results.audit import audit, report

    audited = audit(load_runs(options.runs))
    print(report(audited))
    return int((audited["verdict"] == "FAIL").any())


def _on_gpu(options: argparse.Namespace) -> None:
    from blip.runs.gpus import run_on_gpu

    run_on_gpu([options.command, *options.arguments], options.jobs_per_gpu)


def _methods(options: argparse.Namespace) -> None:
    from blip.methods import METHODS

    for name, method in METHODS.items():
        print(f"{name}\n    {(method.__doc__ or '').strip().splitlines()[0]}")
        for key, field in method.Settings.model_fields.items():
            default = "required" if field.is_required() else f"default {field.default}"
            others = [str(value) for value in _choices(field.annotation) if value != field.default]
            print(f"    {key}: {default}" + (f" (or {', '.join(others)})" if others else ""))
            for line in wrap(field.description or "", 100):
                print(f"        {line}")


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal; none of other types."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _doctor(options: argparse.Namespace) -> None:
    from blip.doctor import report

    print(report())


def _check(options: argparse.Namespace) -> None:
    for path in options.experiment:
        experiment = _experiment(options, path)
        print(f"{path}: {experiment.name}: {', '.join(experiment.methods)}")


if __name__ == "__main__":
    sys.exit(main())
