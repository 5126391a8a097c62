"""The program `blip`: its parser, and what becomes of errors."""

import argparse
import os
import sys
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from blip.cli import data_commands, info_commands, result_commands, training_commands
from blip.cli.arguments import Command
from blip.cli.completion import add_completion
from blip.errors import BlipError, printable

OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
"""What PyTorch says where a computer's or a GPU's memory is too small."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where what was checked failed, 2 for bad input, 130 when
    interrupted, 141 with no reader left.

    Whatever goes wrong is told in one line; with BLIP_TRACEBACK in the environment by a traceback.
    """
    _complete_streams()
    try:
        options = _parser().parse_args(arguments)
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
    elif isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY):
        text = ": ".join(filter(None, ["not enough memory", text]))
    else:
        text = f"{type(error).__name__}: {text} (BLIP_TRACEBACK=1 shows where)"
    return printable(text)


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


class PrintVersion(argparse.Action):
    """Print the version, and end."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Prints; looked up only now, which takes longer than all the rest of the parser."""
        print(f"{parser.prog} {metadata.version('blip-continual')}")
        parser.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="blip",
        description="Continual learning via bit-level information preserving: data, training, tables, figures.",
    )
    add_completion(parser)
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version of blip-continual")
    parser.set_defaults(run=lambda _: parser.print_help())  # of no command
    commands = parser.add_subparsers(metavar="COMMAND")
    for group in (data_commands, training_commands, result_commands, info_commands):
        for command in vars(group).values():
            if isinstance(command, Command):
                added = commands.add_parser(command.name, help=command.text)
                added.set_defaults(run=command.run)
                for add in command.arguments:
                    add(added)
    return parser
