"""Commands that say what there is, and change nothing."""

import argparse
import json
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from blip.cli.arguments import Commands, add_changes, add_command, add_folder, add_variation, experiment, path

SCHEMAS = ("experiment", "suite", "claims")
"""Kinds of files that `blip.json_schemas` knows, which takes seconds to import."""


def add_methods(commands: Commands) -> None:
    add_command(commands, "methods", _methods, "list the methods and their settings")


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


def add_experiments(commands: Commands) -> None:
    parser = add_command(commands, "experiments", _experiments, "list the published experiments, or print one")
    parser.add_argument("name", nargs="?", help="whose file is printed: the start of one of your own")


def _experiments(options: argparse.Namespace) -> None:
    from blip.config import experiment_file, published
    from blip.schema import read_yaml

    if options.name is not None:
        lines = experiment_file(Path(options.name)).read_text(encoding="utf-8").splitlines()
        print(*(line for line in lines if not line.startswith("# yaml-language-server")), sep="\n")
        return
    for name, file in published().items():
        values = read_yaml(file)  # and no more: the packages of games are not everyone's
        print(name, *wrap(values["about"], 100), ", ".join(values["methods"]), sep="\n    ")


def add_schema(commands: Commands) -> None:
    parser = add_command(commands, "schema", _schema, "print the JSON schema of a kind of file, for editors")
    parser.add_argument("kind", choices=SCHEMAS)


def _schema(options: argparse.Namespace) -> None:
    from blip.json_schemas import SCHEMAS

    print(json.dumps(SCHEMAS[options.kind](), indent=2, ensure_ascii=False))


def add_doctor(commands: Commands) -> None:
    parser = add_command(commands, "doctor", _doctor, "say what would run here: versions, CPU, GPUs, containers, data")
    add_folder(parser, "--raw", "data/raw", "raw data")


def _doctor(options: argparse.Namespace) -> None:
    from blip.doctor import report

    print(report(options.raw))


def add_check(commands: Commands) -> None:
    parser = add_command(commands, "check", _check, "check experiment files without running anything")
    parser.add_argument("experiments", metavar="experiment", type=path, nargs="+")
    add_changes(parser)
    add_variation(parser)


def _check(options: argparse.Namespace) -> None:
    for file in options.experiments:
        asked = experiment(options, file)
        print(f"{file}: {asked.name}: {', '.join(asked.methods)}")


COMMANDS = (add_methods, add_experiments, add_doctor, add_check, add_schema)
