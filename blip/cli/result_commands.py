"""Commands that read run folders."""

import argparse

from blip.cli.arguments import RUNS, argument, command, folder, path
from blip.files import expect_writable

OUT_FOLDER = argument("--out", type=path, required=True, help="folder to write to")


@command("results", "print the tables of run folders", RUNS)
def results(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.screen import results_screen

    print(results_screen(load_runs(options.runs)))


@command("tables", "accuracy and forgetting tables from run folders (CSV, Markdown, LaTeX)", RUNS, OUT_FOLDER)
def tables(options: argparse.Namespace) -> None:
    from blip.results import load_runs, write_tables

    print(write_tables(load_runs(options.runs), options.out))


@command(
    "figures",
    "figures from run folders (PDF and PNG)",
    *(RUNS, OUT_FOLDER),
    argument("--parameter", help="LAYER:INDEX of the weight whose bits are shown"),
    argument("--only", metavar="NAME", help="draw this experiment, or group of variants, alone"),
)
def figures(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.figures import write_figures

    expect_writable(options.out)  # before what takes a while
    for figure in write_figures(load_runs(options.runs), options.out, options.parameter, options.only):
        print(figure)


@command("games", "moving pictures of run folders on games (GIF), for `blip page` to show", RUNS, OUT_FOLDER)
def games(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.game_pictures import write_game_pictures

    expect_writable(options.out)
    for picture in write_game_pictures(load_runs(options.runs), options.out):
        print(picture)


@command(
    "page",
    "one page of what was run, tables and charts, in a single file (HTML)",
    RUNS,
    argument(
        "--out",
        type=path,
        required=True,
        help="file to write; tables/, figures/, games/ and claims/ beside it are linked or shown",
    ),
    argument("--beside", type=path, metavar="DIR", help="folder with tables/, figures/, … (default: the page's)"),
    argument("--title", default="Results", help="of the page (default: %(default)s)"),
    argument("--claims", type=path, help="of `blip claims`: the claims.json whose verdicts are shown"),
)
def page(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.page import write_page

    expect_writable(options.out.parent)
    print(write_page(load_runs(options.runs), options.out, options.title, options.claims, options.beside))


@command(
    "crate",
    "an RO-Crate of a results folder: runs, settings, tables, figures and where they come from",
    argument("results", type=path, help="results folder, such as results/demo"),
    argument("--out", type=path, required=True, help="new folder to write to"),
    argument("--author", help="who ran it"),
    argument("--weights", action="store_true", help="with the networks' weights, where the runs have them"),
)
def crate(options: argparse.Namespace) -> None:
    from blip.results.crate import write_crate

    expect_writable(options.out.absolute().parent)
    print(write_crate(options.results, options.out, author=options.author, weights=options.weights))


@command("audit", "check that no anchor of BLIP's runs moved further than it may", RUNS)
def audit(options: argparse.Namespace) -> int:
    from blip.results.audit import audit, report

    audited = audit(options.runs)
    print(report(audited))
    return int((audited["verdict"] == "FAIL").any())


@command(
    "variants", "differences that changed settings make, between runs with one seed (CSV, Markdown)", RUNS, OUT_FOLDER
)
def variants(options: argparse.Namespace) -> None:
    from blip.results import load_runs
    from blip.results.variants import write_variants

    print(write_variants(load_runs(options.runs), options.out))


@command(
    "claims",
    "what this project claims, and whether it is so: PASS, FAIL or NOT RUN",
    argument("runs", type=path, nargs="*", help="folders that hold run folders"),
    argument("--claims", type=path, help="what is claimed (default: what config/claims.yaml says of this project)"),
    folder("--out", "results/claims", "folder to write to"),
    argument("--no-checks", action="store_true", help="judge by the runs alone, without running any check"),
)
def claims(options: argparse.Namespace) -> int:
    import torch

    from blip.claims import PUBLISHED, judge, load_claims
    from blip.claims.report import text, write_report

    expect_writable(options.out)
    torch.set_num_threads(1)
    verdicts = judge(load_claims(options.claims or PUBLISHED), options.runs, checks=not options.no_checks)
    write_report(verdicts, options.out)
    print(text(verdicts))
    return int(any(verdict.verdict == "FAIL" for verdict in verdicts))


@command(
    "export",
    "write the network of a run of BLIP in its sign and frozen bits alone",
    argument("folder", type=path, metavar="RUN", help="run folder, with weights"),
    argument("--out", type=path, required=True, metavar="FILE", help="file to write"),
)
def export(options: argparse.Namespace) -> None:
    from blip.results.export import export_run, size_table

    sizes = export_run(options.folder, options.out)
    print(f"{size_table(sizes)}\n\n{options.out}: every weight comes back bit by bit")


@command(
    "import",
    "write what was exported as float32 weights again",
    argument("file", type=path, help="what `blip export` wrote"),
    argument("--out", type=path, required=True, metavar="FILE", help="safetensors file to write"),
)
def import_(options: argparse.Namespace) -> None:
    from blip.results.export import import_weights

    print(import_weights(options.file, options.out))
