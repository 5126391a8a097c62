"""What a changed setting changes: variants of an experiment beside it, run by run with one seed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from blip.errors import BlipError
from blip.files import atomic_write
from blip.results.comparison import COMPARED
from blip.results.loading import Runs, method_order
from blip.results.markup import markdown_table, p_phrase, plain, points, to_csv
from blip.results.metrics import run_metrics
from blip.results.statistics import holm, paired
from blip.results.tables import warnings_of_group

SHOWN = {"acc": "ACC %", "bwt": "BWT %", "bwt_published": "BWT (published ÷T) %", "forgetting": "forgetting %"}
GUIDE = """\
Means over n seeds in percent; in the last columns differences to the row without a variant above, of runs with the same
seed, in points [95 % t interval], and p of Student's paired test, Holm-corrected within an experiment.
"""


def variants(runs: Runs) -> pd.DataFrame:
    """A row for each experiment, method and variant, and before them the experiment as it is (variant: empty).

    Columns experiment, method, variant, n, the means of `SHOWN`, and of each metric in `COMPARED` `…_difference` (the
    variant's minus that of the experiment as it is), `…_low`, `…_high` (95 % t interval), `…_p` (Holm-corrected over
    the experiment). Shares in [0, 1]. Raises BlipError where there is no variant.
    """
    of = {name: variant.of for name, variant in runs.variants.items() if variant.of in runs.scores}
    if not of:
        raise BlipError("no variants: expected runs of an experiment, and of it with other settings")
    metrics = run_metrics(runs).set_index("seed")
    by_run = {(str(e), str(method)): frame for (e, method), frame in metrics.groupby(["experiment", "method"])}
    rows = []
    for whole in sorted(set(of.values())):
        section: list[dict[str, Any]] = []
        for method in method_order(method for name, method in by_run if of.get(name) == whole):
            if (whole, method) not in by_run:
                raise BlipError(f"{whole}: no runs of {method}, of which there are variants")
            names = [whole, *sorted(name for name, other in of.items() if other == whole and (name, method) in by_run)]
            section += [_row(whole, method, name, by_run[name, method], by_run[whole, method]) for name in names]
        corrected = iter(holm([row[f"{metric}_p"] for row in section for metric in COMPARED]))
        rows += [row | {f"{metric}_p": float(next(corrected)) for metric in COMPARED} for row in section]
    return pd.DataFrame(rows)


def _row(whole: str, method: str, name: str, runs: pd.DataFrame, originals: pd.DataFrame) -> dict[str, Any]:
    variant = name.removeprefix(whole).removeprefix(".")
    row: dict[str, Any] = {"experiment": whole, "method": method, "variant": variant, "n": len(runs)}
    row["pairs"] = len(runs.index.intersection(originals.index))
    row |= {name: runs[name].mean() for name in SHOWN}
    for metric in COMPARED:
        found = paired((runs[metric] - originals[metric]).dropna() if variant else [])
        values = (found.mean, found.interval.low, found.interval.high, found.p_t)
        row |= zip((f"{metric}_{part}" for part in ("difference", "low", "high", "p")), values, strict=True)
    return row


def variants_markdown(table: pd.DataFrame, warnings: Iterable[str] = ()) -> str:
    """The table for reading, with `warnings` below it."""
    rows = [
        [*(plain(row[name]) for name in ("experiment", "method", "variant")), str(row["n"])]
        + ["–" if pd.isna(row[name]) else f"{100 * row[name]:z.2f}" for name in SHOWN]
        + [_difference(row, metric) for metric in COMPARED]
        for row in table.to_dict("records")
    ]
    headings = ["experiment", "method", "variant", "n", *SHOWN.values(), "ACC, difference", "forgetting, difference"]
    listed = [f"* {plain(warning)}" for warning in warnings]
    return "\n".join([GUIDE, markdown_table(rows, headings), "", *listed, *([""] if listed else [])])


def _difference(row: dict[Any, Any], metric: str) -> str:
    difference, low, high = (row[f"{metric}_{part}"] for part in ("difference", "low", "high"))
    if pd.isna(difference):
        return ""
    if pd.isna(low):
        return f"{points(difference)}; too few seeds in common ({row['pairs']}) to tell"
    of = f" ({row['pairs']} pairs)" if row["pairs"] < row["n"] else ""
    return f"{points(difference)} [{points(low)}, {points(high)}], {p_phrase(row[f'{metric}_p'])}{of}"


def write_variants(runs: Runs, out: Path) -> str:
    """Write variants.csv and variants.md; the Markdown."""
    table = variants(runs)
    compared = [group for group, names in runs.grouped_variants().items() if runs.variants[names[0]].of in runs.scores]
    titled = table.assign(experiment=[runs.of(name).title() for name in table["experiment"]])
    text = variants_markdown(titled, [warning for group in compared for warning in warnings_of_group(runs, group)])
    atomic_write(out / "variants.csv", to_csv(table))
    atomic_write(out / "variants.md", text)
    return text
