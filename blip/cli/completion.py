"""The script by which a shell completes commands, options, methods and experiments."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh")
EXPERIMENTS: dict[str, Any] = {
    "bash": "_blip_experiments",
    "zsh": "_blip_experiments",
    "preamble": {
        "bash": "_blip_experiments() {{ compgen -W '{names}' -- $1; compgen -f -- $1; }}",
        "zsh": "_blip_experiments() {{ compadd {names}; _files; }}",
    },
}
"""Functions of the shells that complete an experiment: a published one, or a file."""


class PrintCompletion(argparse.Action):
    """Print the script for a shell, and end."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Prints; `values` is the shell."""
        print(script(parser, values))
        parser.exit(0)


def add_completion(parser: argparse.ArgumentParser) -> None:
    """`--print-completion SHELL`."""
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=SHELLS, help="print what completes `blip` in a shell"
    )


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What to source in a shell. Changes the parser: it then takes nothing but known methods and files."""
    import shtab

    from blip.config import published
    from blip.methods import METHODS

    names = " ".join(published())
    preamble = {shell: function.format(names=names) for shell, function in EXPERIMENTS["preamble"].items()}
    experiments = EXPERIMENTS | {"preamble": preamble}
    for action in _actions(parser):
        if action.dest == "method":
            action.choices = list(METHODS)
        elif action.dest in ("experiment", "experiments", "name"):
            action.complete = experiments  # type: ignore[attr-defined]
        elif getattr(action.type, "__name__", "") == "path":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell)
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of the parser and of those of its commands."""
    actions: Sequence[argparse.Action] = parser._actions
    for action in actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
