"""Commands that say what there is, and change nothing."""

import argparse
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from blip.cli.arguments import Commands, add_changes, add_command, experiment, path


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


def add_doctor(commands: Commands) -> None:
    add_command(commands, "doctor", _doctor, "say what this machine has: versions, GPUs, optional packages")


def _doctor(options: argparse.Namespace) -> None:
    from blip.doctor import report

    print(report())


def add_check(commands: Commands) -> None:
    parser = add_command(commands, "check", _check, "check experiment files without running anything")
    parser.add_argument("experiments", metavar="experiment", type=path, nargs="+")
    add_changes(parser)


def _check(options: argparse.Namespace) -> None:
    for file in options.experiments:
        asked = experiment(options, file)
        print(f"{file}: {asked.name}: {', '.join(asked.methods)}")


COMMANDS = (add_methods, add_doctor, add_check)
