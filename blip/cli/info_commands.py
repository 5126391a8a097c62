"""Commands that say what there is, and change nothing."""

import argparse
import json
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from blip.cli import arguments
from blip.cli.arguments import argument, command, experiment, folder, path
from blip.errors import BlipError

SCHEMAS = ("experiment", "suite", "claims")
"""Kinds of files that `blip.json_schemas` knows, which takes seconds to import."""


@command("methods", "list the methods and their settings")
def methods(options: argparse.Namespace) -> None:
    from blip.methods import METHODS

    for name, method in METHODS.items():
        print(f"{name}\n    {(method.__doc__ or '-').strip().splitlines()[0]}")
        for key, field in method.Settings.model_fields.items():
            default = "required" if field.is_required() else f"default {field.default}"
            others = [str(value) for value in _choices(field.annotation) if value != field.default]
            print(f"    {key}: {default}" + (f" (or {', '.join(others)})" if others else ""))
            for line in wrap(field.description or "", 100):
                print(f"        {line}")


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal; none of other types."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


@command(
    "experiments",
    "list the published experiments, or print one",
    argument("name", nargs="?", help="whose file is printed: the start of one of your own"),
)
def experiments(options: argparse.Namespace) -> None:
    from blip.config import experiment_file, published
    from blip.schema import read_text, read_yaml

    if options.name is not None:
        lines = read_text(experiment_file(Path(options.name))).splitlines()
        print(*(line for line in lines if not line.startswith("# yaml-language-server")), sep="\n")
        return
    for name, file in published().items():
        values = read_yaml(file)  # and no more: the packages of games are not everyone's
        print(name, *wrap(values["about"], 100), ", ".join(values["methods"]), sep="\n    ")


@command(
    "doctor",
    "say what would run here: versions, CPU, GPUs, containers, data",
    folder("--raw", "data/raw", "raw data"),
)
def doctor(options: argparse.Namespace) -> None:
    from blip.doctor import report

    print(report(options.raw))


@command(
    "check",
    "check files of experiments and suites without running anything",
    argument("files", metavar="file", type=path, nargs="+", help="an experiment or a suite of the workflow"),
    *(arguments.CHANGES, arguments.VARIATION),
)
def check(options: argparse.Namespace) -> None:
    from blip.config import experiment_file, is_suite, load_suite

    for file in options.files:
        if not is_suite(experiment_file(file)):
            asked = experiment(options, file)
            print(f"{file}: {asked.name}: {', '.join(asked.methods)}")
            continue
        if options.set or options.vary:
            raise BlipError(f"{file}: --set, --vary: expected an experiment, a suite says itself what it changes")
        for name, planned in load_suite(file, None)[1].items():
            seeds = " ".join(map(str, planned.seeds))
            print(f"{file}: {name}: {', '.join(planned.methods)}; seeds {seeds}")


@command("schema", "print the JSON schema of a kind of file, for editors", argument("kind", choices=SCHEMAS))
def schema(options: argparse.Namespace) -> None:
    from blip.json_schemas import SCHEMAS

    print(json.dumps(SCHEMAS[options.kind](), indent=2, ensure_ascii=False))
