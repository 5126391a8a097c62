"""Commands that read run folders."""

import argparse
from pathlib import Path

from blip.cli.arguments import Commands, add_command, add_runs, path


def add_results(commands: Commands) -> None:
    add_runs(add_command(commands, "results", _results, "print the tables of run folders"))


def _results(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.screen import results_screen

    print(results_screen(load_runs(options.runs)))


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
    parser.add_argument("--only", metavar="NAME", help="draw this experiment, or group of variants, alone")


def _figures(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_figures

    for figure in write_figures(load_runs(options.runs), options.out, options.parameter, options.only):
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


def add_page(commands: Commands) -> None:
    parser = add_command(
        commands, "page", _page, "one page of what was run, tables and charts, in a single file (HTML)"
    )
    add_runs(parser)
    parser.add_argument(
        "--out",
        type=path,
        required=True,
        help="file to write; tables/, figures/, games/ and claims/ beside it are linked or shown",
    )
    parser.add_argument("--title", default="Results", help="of the page (default: %(default)s)")
    parser.add_argument("--claims", type=path, help="of `blip claims`: the claims.json whose verdicts are shown")


def _page(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.page import write_page

    print(write_page(load_runs(options.runs), options.out, options.title, options.claims))


def add_crate(commands: Commands) -> None:
    what = "an RO-Crate of a results folder: runs, settings, tables, figures and where they come from"
    parser = add_command(commands, "crate", _crate, what)
    parser.add_argument("results", type=path, help="results folder, such as results/demo")
    parser.add_argument("--out", type=path, required=True, help="new folder to write to")
    parser.add_argument("--author", help="who ran it")
    parser.add_argument("--weights", action="store_true", help="with the networks' weights, where the runs have them")


def _crate(options: argparse.Namespace) -> None:
    from blip.results.crate import write_crate

    print(write_crate(options.results, options.out, author=options.author, weights=options.weights))


def add_audit(commands: Commands) -> None:
    parser = add_command(commands, "audit", _audit, "check that no anchor of BLIP's runs moved further than it may")
    add_runs(parser)


def _audit(options: argparse.Namespace) -> int:
    from blip.results import load_runs
    from blip.results.audit import audit, report

    audited = audit(load_runs(options.runs))
    print(report(audited))
    return int((audited["verdict"] == "FAIL").any())


def add_variants(commands: Commands) -> None:
    what = "differences that changed settings make, between runs with one seed (CSV, Markdown)"
    _add_runs_and_out(add_command(commands, "variants", _variants, what))


def _variants(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.variants import write_variants

    print(write_variants(load_runs(options.runs), options.out))


def add_claims(commands: Commands) -> None:
    what = "what this project claims, and whether it is so: PASS, FAIL or NOT RUN"
    parser = add_command(commands, "claims", _claims, what)
    parser.add_argument("runs", type=path, nargs="*", help="folders that hold run folders")
    parser.add_argument(
        "--claims", type=path, default=Path("config/claims.yaml"), help="what is claimed (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=path, default=Path("results/claims"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--no-checks", action="store_true", help="judge by the runs alone, without running any check")


def _claims(options: argparse.Namespace) -> int:
    import torch

    from blip.claims import judge, load_claims
    from blip.claims.report import text, write_report

    torch.set_num_threads(1)
    verdicts = judge(load_claims(options.claims), options.runs, checks=not options.no_checks)
    write_report(verdicts, options.out)
    print(text(verdicts))
    return int(any(verdict.verdict == "FAIL" for verdict in verdicts))


def add_export(commands: Commands) -> None:
    parser = add_command(
        commands, "export", _export, "write the network of a run of BLIP in its sign and frozen bits alone"
    )
    parser.add_argument("folder", type=path, metavar="RUN", help="run folder, with weights")
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="file to write")


def _export(options: argparse.Namespace) -> None:
    from blip.results.export import export_run, size_table

    sizes = export_run(options.folder, options.out)
    print(f"{size_table(sizes)}\n\n{options.out}: every weight comes back bit by bit")


def add_import(commands: Commands) -> None:
    parser = add_command(commands, "import", _import, "write what was exported as float32 weights again")
    parser.add_argument("file", type=path, help="what `blip export` wrote")
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="safetensors file to write")


def _import(options: argparse.Namespace) -> None:
    from blip.results.export import import_weights

    print(import_weights(options.file, options.out))


def _add_runs_and_out(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument("--out", type=path, required=True, help="folder to write to")


COMMANDS = (
    add_results,
    add_tables,
    add_figures,
    add_games,
    add_page,
    add_crate,
    add_audit,
    add_variants,
    add_claims,
    add_export,
    add_import,
)
