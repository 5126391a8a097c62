"""Tables of metrics: CSV for programs, Markdown for reading, LaTeX (booktabs) for papers.

accuracy.csv, metrics.csv and summary.csv hold shares in [0, 1]; the tables of one experiment
hold percent.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from blip.files import atomic_write
from blip.results.metrics import run_metrics, summarise
from blip.results.runs import Runs, method_order, mixed_runs


class Column(NamedTuple):
    """A column of the tables: a metric, its heading and unit, and which end of it is best."""

    metric: str
    heading: str
    scale: float = 100.0
    decimals: int = 2
    best: str = ""  # "max", "min" or neither


class Spread(NamedTuple):
    """A metric of one method over its seeds: ci95 is half the width of the interval."""

    mean: float
    std: float
    n: int
    ci95: float


class Cell(NamedTuple):
    """A formatted number; `interval` is empty for fewer than two seeds."""

    text: str
    interval: str = ""
    best: bool = False


Spreads = dict[str, dict[str, Spread]]  # by method (in the order of the table) and metric

COLUMNS = (
    Column("acc", "ACC %", best="max"),
    Column("bwt", "BWT %", best="max"),
    Column("bwt_published", "BWT (published ÷T) %"),
    Column("forgetting", "forgetting %", best="min"),
    Column("capacity", "capacity %"),
    Column("minutes", "minutes", scale=1.0, decimals=1),
)
HEADINGS = ("method", "n", *(column.heading for column in COLUMNS))
GUIDE = """\
# Results

Each row is a method. Cells are mean ± standard deviation over n seeds [95 % confidence interval of
the mean]; bold marks the best mean of a column.

* **ACC**: average accuracy over all tasks after learning the last one. Higher is better.
* **BWT** (backward transfer): mean change of the accuracy on earlier tasks since each was learned;
  below 0 is forgetting. *Published ÷T* divides the same sum by T tasks instead of T - 1, as BLIP's
  published code does.
* **Forgetting**: mean drop on earlier tasks from the best accuracy seen on them before the last
  task. Lower is better.
* **Capacity**: share of all bits that are frozen after the last task, for methods that freeze bits.
* **Minutes**: time of a whole run, evaluation included.
"""
LATEX_ESCAPES = str.maketrans(
    {sign: "\\" + sign for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "÷": r"$\div$", "–": "--", "−": "$-$"}
)


def write_tables(runs: Runs, out_dir: Path) -> str:
    """Write accuracy.csv, metrics.csv, summary.csv, tables.md and tables/<experiment>.{csv,md,tex}.

    Returns the Markdown of tables.md.
    """
    metrics = run_metrics(runs)
    summary = summarise(metrics)
    for name, frame in (("accuracy", runs.accuracy), ("metrics", metrics), ("summary", summary)):
        atomic_write(out_dir / f"{name}.csv", frame.to_csv(index=False))
    sections = []
    for experiment in runs.experiments():
        selected = runs.of(experiment)
        spreads = spreads_of(summary[summary["experiment"] == experiment])
        sections.append(markdown(selected, spreads))
        folder = out_dir / "tables"
        atomic_write(folder / f"{experiment}.csv", wide(spreads).to_csv(index=False))
        atomic_write(folder / f"{experiment}.md", sections[-1])
        atomic_write(folder / f"{experiment}.tex", latex(selected, spreads))
    text = "\n".join([GUIDE, *sections])
    atomic_write(out_dir / "tables.md", text)
    return text


def spreads_of(summary: pd.DataFrame) -> Spreads:
    """The rows of `summarise` that belong to one experiment, by method and metric."""
    spreads: Spreads = {method: {} for method in method_order(summary["method"])}
    columns = (summary[name].tolist() for name in ("method", "metric", *Spread._fields))
    for method, metric, *numbers in zip(*columns, strict=True):
        spreads[method][metric] = Spread(*numbers)
    return spreads


def markdown(runs: Runs, spreads: Spreads) -> str:
    """The section of one experiment: title, table, a sentence in plain words, notes on the runs."""
    rows = []
    for method, cells in format_cells(spreads).items():
        bold = (f"**{cell.text}**" if cell.best else cell.text for cell in cells)
        texts = (f"{text} {cell.interval}".strip() for text, cell in zip(bold, cells, strict=True))
        rows.append([method, str(spreads[method]["acc"].n), *texts])
    table = tabulate(rows, HEADINGS, tablefmt="pipe", disable_numparse=True)
    listed = "\n".join(f"* {note}" for note in notes(runs))
    return f"## {runs.title()}\n\n{table}\n\n{sentence(runs, spreads)}\n\n{listed}\n"


def latex(runs: Runs, spreads: Spreads) -> str:
    """The table of one experiment for a document that loads booktabs.

    Intervals stand on a second, smaller line below each method.
    """
    lines = [" & ".join(map(latex_escape, HEADINGS)) + r" \\", r"\midrule"]
    for method, cells in format_cells(spreads).items():
        numbers = [_latex_number(cell.text, bold=cell.best) for cell in cells]
        lines.append(" & ".join([latex_escape(method), str(spreads[method]["acc"].n), *numbers]) + r" \\")
        if any(cell.interval for cell in cells):
            small = [rf"\scriptsize {_latex_number(cell.interval)}" for cell in cells]
            lines.append(" & ".join(["", "", *small]) + r" \\")
    spread = "mean ± standard deviation over n seeds [95 % confidence interval of the mean]"
    caption = ". ".join([f"{runs.title()}: {spread}", *notes(runs)]) + "."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escape(caption)}}}",
            rf"\begin{{tabular}}{{lr{'c' * len(COLUMNS)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def wide(spreads: Spreads) -> pd.DataFrame:
    """The table as numbers: a row per method; mean, std and ci95 of each column."""
    rows = []
    for method, by_metric in spreads.items():
        row: dict[str, object] = {"method": method, "n": by_metric["acc"].n}
        for column in COLUMNS:
            name = column.metric + ("_percent" if column.scale == 100 else "")
            for statistic in ("mean", "std", "ci95"):
                value = getattr(by_metric[column.metric], statistic)
                row[f"{name}_{statistic}"] = value * column.scale
        rows.append(row)
    return pd.DataFrame(rows)


def sentence(runs: Runs, spreads: Spreads) -> str:
    """What the table says, for somebody who does not know the field."""
    bwt, acc = ({m: s[name].mean for m, s in spreads.items()} for name in ("bwt", "acc"))
    bwt = {method: value for method, value in bwt.items() if not pd.isna(value)}
    tasks = int(runs.runs["tasks"].max())
    names, percent = _extreme(acc, max)
    best = "Highest average accuracy" if len(acc) > 1 else "Average accuracy"
    parts = [f"{best} after {tasks} task{'s' * (tasks > 1)}: {names} ({percent:.1f} %)"]
    if bwt:
        names, change = _extreme(bwt, max)
        best = "keeps best what it learned" if len(bwt) > 1 else "keeping what it learned"
        meaning = "accuracy on earlier tasks changed by"
        parts.append(f"{best}: {names} ({meaning} {change:+.2f} points since they were learned)")
        names, worst = _extreme(bwt, min)
        if worst < min(change, 0):
            parts.append(f"forgets most: {names} ({worst:+.2f} points)")
    return "; ".join(parts) + "."


def notes(runs: Runs) -> list[str]:
    """What a reader must know of the runs: seeds, length of training, mixed versions."""
    seeds = {method: sorted(runs.runs.loc[runs.runs["method"] == method, "seed"].tolist()) for method in runs.methods()}
    texts = {m: f"{', '.join(map(str, s))} (n = {len(s)})" for m, s in seeds.items()}
    if len(set(texts.values())) == 1:
        texts = {"every method": next(iter(texts.values()))}
    stated = ["Seeds of " + "; ".join(f"{who}: {which}" for who, which in texts.items())]
    epochs = runs.history.groupby(["method", "seed", "task"]).size()
    stated.append(f"Epochs trained per task: {epochs.min()} to {epochs.max()}")
    return stated + [f"Warning: {warning}" for warning in mixed_runs(runs)]


def format_cells(spreads: Spreads) -> dict[str, list[Cell]]:
    """The cells of each method's row; best is what is best as shown, so ties are all marked."""
    columns = [_format_column([s[c.metric] for s in spreads.values()], c) for c in COLUMNS]
    return {method: [cells[row] for cells in columns] for row, method in enumerate(spreads)}


def latex_escape(text: str) -> str:
    """`text` with everything that LaTeX would read as a command escaped."""
    return text.translate(LATEX_ESCAPES)


def _format_column(spreads: list[Spread], column: Column) -> list[Cell]:
    def show(value: float) -> str:
        shown = f"{value * column.scale:.{column.decimals}f}"
        return shown.lstrip("-") if float(shown) == 0 else shown

    numbers = [float(show(s.mean)) for s in spreads if not pd.isna(s.mean)]
    best = None
    if column.best and len(numbers) > 1:
        best = max(numbers) if column.best == "max" else min(numbers)
    cells = []
    for mean, std, _, half in spreads:
        if pd.isna(mean):
            cells.append(Cell("–"))
            continue
        text, interval = show(mean), ""
        if not pd.isna(half):
            text, interval = f"{text} ± {show(std)}", f"[{show(mean - half)}, {show(mean + half)}]"
        cells.append(Cell(text, interval, best=float(show(mean)) == best))
    return cells


def _latex_number(text: str, bold: bool = False) -> str:
    number = latex_escape(text.replace("-", "−"))
    return rf"\textbf{{{number}}}" if bold else number


def _extreme(values: dict[str, float], which: Callable[[Iterable[float]], float]) -> tuple[str, float]:
    """The methods with the largest or smallest value, and that value in percent, rounded."""
    shown = {method: round(100 * value, 1) + 0.0 for method, value in values.items()}
    extreme = which(shown.values())
    return " and ".join(m for m in shown if shown[m] == extreme), extreme
