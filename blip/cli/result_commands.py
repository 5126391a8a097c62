"""Commands that read run folders."""

import argparse

from blip.cli.arguments import Commands, add_command, add_runs, path


def add_tables(commands: Commands) -> None:
    parser = add_command(
        commands, "tables", _tables, "accuracy and forgetting tables from run folders (CSV, Markdown, LaTeX)"
    )
    _add_runs_and_out(parser)


def _tables(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_tables

    print(write_tables(load_runs(options.runs), options.out))


def add_figures(commands: Commands) -> None:
    parser = add_command(commands, "figures", _figures, "figures from run folders (PDF and PNG)")
    _add_runs_and_out(parser)
    parser.add_argument("--parameter", help="LAYER:INDEX of the weight whose bits are shown")


def _figures(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_figures

    for figure in write_figures(load_runs(options.runs), options.out, options.parameter):
        print(figure)


def add_games(commands: Commands) -> None:
    parser = add_command(
        commands, "games", _games, "a page of moving pictures from run folders on games (HTML and GIF)"
    )
    _add_runs_and_out(parser)


def _games(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.game_page import write_game_page

    print(write_game_page(load_runs(options.runs), options.out))


def add_audit(commands: Commands) -> None:
    parser = add_command(commands, "audit", _audit, "check that no anchor of BLIP's runs moved further than it may")
    add_runs(parser)


def _audit(options: argparse.Namespace) -> int:
    from blip.results import load_runs
    from blip.results.audit import audit, report

    audited = audit(load_runs(options.runs))
    print(report(audited))
    return int((audited["verdict"] == "FAIL").any())


def _add_runs_and_out(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument("--out", type=path, required=True, help="folder to write to")


COMMANDS = (add_tables, add_figures, add_games, add_audit)
