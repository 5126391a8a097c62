"""Tables of metrics: CSV for programs, Markdown for reading, LaTeX (booktabs) for papers.

metrics.csv and summary.csv hold shares in [0, 1], scores.csv what was measured; the tables of one experiment percent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from blip.files import atomic_write
from blip.results import ablations, currency
from blip.results.comparison import best_of, compare, interquartile_means
from blip.results.comparison_table import comparison_latex, comparison_markdown
from blip.results.loading import REFERENCES, SINGLE_TASK, Runs, mixed_runs, unlike_data, unlike_variants
from blip.results.markup import latex_escape, latex_table, markdown_table, plain, to_csv
from blip.results.metrics import run_metrics, score_name, scores_kept, summarise
from blip.results.scenario import mixed_settings, mixed_variants, scenario, settings_by_method
from blip.results.statistics import SEEDS_OF_INTERVAL


class TableColumn(NamedTuple):
    """A column of the tables: its name in CSV (a metric and its unit), its heading, and which end of it is best."""

    name: str
    heading: str
    best: str = ""  # "max", "min" or neither
    decimals: int = 2
    factor: float = 1
    """From the CSV's unit to the heading's."""


class Cell(NamedTuple):
    """A formatted number; `interval` is empty where there are too few seeds."""

    text: str
    interval: str
    best: bool


COLUMNS = (
    TableColumn("acc_percent", "ACC %", best="max"),
    TableColumn("bwt_percent", "BWT %", best="max"),
    TableColumn("bwt_published_percent", "BWT (published ÷T) %"),
    TableColumn("forgetting_percent", "forgetting %", best="min"),
    TableColumn("plasticity_percent", "plasticity %"),
    TableColumn("capacity_percent", "capacity %"),
    TableColumn("memory_mb", "memory MB", decimals=3),
    TableColumn("minutes", "minutes", decimals=1),
)
IN_SECONDS = TableColumn("minutes", "seconds", decimals=1, factor=60)
MOST_NAMED = 4
"""Methods with the same result that a sentence names."""
GUIDE = """\
# Results

Each row is a method. Cells are mean ± standard deviation over n seeds [95 % interval of the mean, by
resampling the seeds; from five of them on]. Bold marks the best mean of a column and all that cannot
be told from it (Student's paired test at 5 %, Holm-corrected), among the methods with five seeds or
more: fewer are too few for a test. Rows of single-task (a network for each task) and joint (all
tasks so far together) are references, not continual learning, and never bold.

* **ACC**: average accuracy over all tasks after learning the last one. Higher is better.
* **BWT** (backward transfer): mean change of the accuracy on earlier tasks since each was learned;
  below 0 is forgetting. *Published ÷T* divides the same sum by T tasks instead of T - 1, as BLIP's
  published code does.
* **Forgetting**: mean drop on earlier tasks from the best accuracy seen on them before the last
  task. Lower is better.
* **Plasticity**: accuracy just after learning a task, minus that of single-task with the same seed;
  a method that keeps everything by learning nothing new is far below 0.
* **Capacity**: share of all bits that are frozen after the last task, for methods that freeze bits.
* **Memory**: what the method keeps beside the network after the last task, in 10⁶ bytes; not of
  joint, which keeps all images. Of single-task the last network is in it too, and the initial one,
  which the bits below leave out.
* **Minutes** (or seconds): time of a whole run, evaluation included.

Games have returns instead of accuracies. The normalised return is 0 % for an agent that acts at
random and 100 % for the mean of the method that learned the game best, just after learning it; it
is missing where no method did better than chance in some game.
"""


def write_tables(runs: Runs, out_dir: Path) -> str:
    """Write scores.csv, metrics.csv, summary.csv, tables.md, tables/<experiment>.{csv,md,tex}, and where BLIP has a
    method beside it comparison.{csv,md,tex}.

    Returns the Markdown of tables.md.
    """
    metrics = run_metrics(runs)
    scores = pd.concat([runs.of(name).raw_scores().assign(of=runs.scores[name].name) for name in runs.experiments()])
    frames = {"scores": scores, "metrics": metrics, "summary": summarise(metrics)}
    files = {out_dir / f"{name}.csv": to_csv(frame) for name, frame in frames.items()}
    sections = []
    for experiment in runs.ungrouped():
        selected = runs.of(experiment)
        table = method_table(selected)
        sections.append(markdown(selected, table))
        folder = out_dir / "tables"
        if selected.score.chance:
            kept = scores_kept(selected)
            means = interquartile_means(selected)
            files[folder / f"{experiment}_{selected.score.name}s.csv"] = to_csv(kept)
            files[folder / f"{experiment}_iqm.csv"] = to_csv(means)
            sections[-1] += f"\n{kept_markdown(selected, kept)}\n\n{iqm_markdown(selected, means)}\n"
        needed = currency.spread(currency.bits_needed(selected))
        sections[-1] += f"\n{currency.section(selected, needed)}"
        if len(needed):
            files[folder / f"{experiment}_bits.csv"] = to_csv(needed)
        files[folder / f"{experiment}.csv"] = to_csv(table.reset_index())
        files[folder / f"{experiment}.md"] = sections[-1]
        files[folder / f"{experiment}.tex"] = latex(selected, table)
    for group, names in runs.groups().items():
        varied = ablations.summary(ablations.ablation(runs.of(*names)))
        files[out_dir / "tables" / f"{group}.csv"] = to_csv(varied)
        listed = "".join(f"* {plain(warning)}\n" for warning in warnings_of_group(runs, group))
        sections.append(ablations.section(runs.of(*names), group, varied) + (listed and f"\n{listed}"))
        files[out_dir / "tables" / f"{group}.md"] = sections[-1]
    if len(compared := compare(runs)):
        titled = compared.assign(experiment=[runs.of(name).title() for name in compared["experiment"]])
        sections.append(comparison_markdown(titled))
        comparison = {"csv": to_csv(compared), "md": sections[-1], "tex": comparison_latex(titled)}
        files |= {out_dir / f"comparison.{kind}": text for kind, text in comparison.items()}
    text = "\n".join([GUIDE, *sections])
    for path, content in {**files, out_dir / "tables.md": text}.items():  # all or nothing
        atomic_write(path, content)
    return text


def method_table(runs: Runs) -> pd.DataFrame:
    """The table of one experiment as numbers: a row per method; n, then mean, std, low and high of each column, and
    whether it is among the best."""
    metrics = run_metrics(runs)
    numbers = summarise(metrics).pivot(index="method", columns="metric")
    table = pd.DataFrame({"n": numbers["n", "minutes"]})
    for column in COLUMNS:
        metric = column.name.removesuffix("_percent")
        for statistic in ("mean", "std", "low", "high"):
            table[f"{column.name}_{statistic}"] = numbers[statistic, metric] * (1 if column.name == metric else 100)
        if column.best:
            table[f"{column.name}_best"] = table.index.isin(best_of(metrics, metric, column.best))
    return table.loc[runs.methods()]


def markdown(runs: Runs, table: pd.DataFrame) -> str:
    """The section of one experiment: title, table, a sentence in plain words, notes on the runs."""
    rows = [
        [*head, *(f"{f'**{c.text}**' if c.best else c.text} {c.interval}".strip() for c in cells)]
        for head, cells in format_rows(table)
    ]
    text = markdown_table(rows, headings(runs, table))
    listed = "\n".join(f"* {plain(note)}" for note in notes(runs))
    return f"## {runs.title()}\n\n{text}\n\n{sentence(runs, table)}\n\n{listed}\n"


def kept_markdown(runs: Runs, kept: pd.DataFrame) -> str:
    """Scores of each task as they were measured: just after learning it → after learning all tasks."""
    score, task = runs.score.name, runs.score.task
    cells = {
        (row[task], row["method"]): " → ".join(
            _spread(row[f"{moment}_mean"], row[f"{moment}_std"]) for moment in ("learned", "end")
        )
        for row in kept.to_dict("records")
    }
    chance = kept.groupby(task)["chance"].first()
    methods = runs.methods()
    rows = [
        [plain(name), f"{chance[name]:.1f}", *(cells.get((name, method), "–") for method in methods)]
        for name in runs.tasks
    ]
    moments = f"just after learning the {task} → after learning all {task}s"
    title = f"Mean {score}s (± standard deviation over seeds), {moments}:"
    return f"{title}\n\n{markdown_table(rows, (task, 'chance', *methods))}"


def headings(runs: Runs, table: pd.DataFrame) -> list[str]:
    """Of the columns."""
    texts = ["method", "n", *(column.heading for column in shown_columns(table))]
    return [f"{score_name(runs)} %" if runs.score.chance and text == "ACC %" else text for text in texts]


def shown_columns(table: pd.DataFrame) -> list[TableColumn]:
    """The first, and those of which there is a number; short runs' minutes in seconds."""
    columns = [column for column in COLUMNS if column == COLUMNS[0] or table[f"{column.name}_mean"].notna().any()]
    return [
        IN_SECONDS if column.name == "minutes" and table["minutes_mean"].max() < 2 else column for column in columns
    ]


def iqm_markdown(runs: Runs, means: pd.DataFrame) -> str:
    """The interquartile means of an experiment whose scores are no shares, in a line."""
    parts = [
        f"{row['method']} {100 * row['iqm']:.1f} %"
        + ("" if pd.isna(row["low"]) else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]")
        for row in means.dropna(subset="iqm").to_dict("records")
    ]
    task = runs.score.task
    what = f"Interquartile mean of the {score_name(runs)} over {task}s and seeds, after the last {task}"
    interval = f" [95 %, by resampling the seeds of each {task}]" if means["low"].notna().any() else ""
    return f"{what}{interval}: {', '.join(parts) or 'nothing to show'}."


def latex(runs: Runs, table: pd.DataFrame) -> str:
    """The table of one experiment for a document that loads booktabs; intervals on a second, smaller line."""
    rows: list[list[str]] = []
    for head, cells in format_rows(table):
        texts = [latex_escape(cell.text.replace("-", "−")) for cell in cells]
        bold = [rf"\textbf{{{text}}}" if cell.best else text for text, cell in zip(texts, cells, strict=True)]
        rows.append([*map(latex_escape, head), *bold])
        if any(cell.interval for cell in cells):
            rows.append(["", "", *(rf"\scriptsize {latex_escape(c.interval.replace('-', '−'))}" for c in cells)])
    caption = ". ".join([f"{runs.title()}: {legend(table)}", *notes(runs)]) + "."
    heads = map(latex_escape, headings(runs, table))
    return latex_table(rows, heads, caption, f"lr{'c' * len(shown_columns(table))}")


def legend(table: pd.DataFrame) -> str:
    """What the cells of a table hold, and what is bold, as far as there is any of it."""
    std, low, best = (table.filter(regex=f"_{name}$") for name in ("std", "low", "best"))
    if not std.notna().any(axis=None):
        return "of one seed"
    interval = " [95 % interval of the mean, by resampling the seeds]" if low.notna().any(axis=None) else ""
    among = f" of methods with {SEEDS_OF_INTERVAL} seeds or more" if (table["n"] < SEEDS_OF_INTERVAL).any() else ""
    bold = f"; bold: the best of a column{among}, and all that cannot be told from it" if best.any(axis=None) else ""
    return f"mean ± standard deviation over n seeds{interval}{bold}"


def sentence(runs: Runs, table: pd.DataFrame) -> str:
    """What the table says, for somebody who does not know the field."""
    result, task = score_name(runs), runs.score.task
    tasks = int(runs.runs["tasks"].max())
    compared = ~table.index.isin(REFERENCES)
    table = table[compared] if compared.any() else table
    enough = table["n"] >= SEEDS_OF_INTERVAL
    few = enough.sum() > 1 and not enough.all()  # one seed does not make a method the best
    table, among = (table[enough], f"Of the methods with {SEEDS_OF_INTERVAL} seeds or more: ") if few else (table, "")
    acc, bwt = (table[f"{metric}_percent_mean"].dropna().round(2) for metric in ("acc", "bwt"))
    if acc.empty:
        return f"In some {task} no method did better than chance, so nothing can be said of all {task}s together."
    best = f"Highest average {result}" if len(acc) > 1 else f"Average {result}"
    parts = [f"{best} after {tasks} {task}{'s' * (tasks > 1)}: {_names(acc, acc.max())} ({acc.max():.2f} %)"]
    if len(bwt):
        best = "keeps best what it learned" if len(bwt) > 1 else "keeping what it learned"
        meaning = f"{result} on earlier {task}s changed by"
        change = f"{meaning} {bwt.max():+z.2f} points since they were learned"
        parts.append(f"{best}: {_names(bwt, bwt.max())} ({change})")
        if bwt.min() < min(bwt.max(), 0):
            parts.append(f"forgets most: {_names(bwt, bwt.min())} ({bwt.min():+.2f} points)")
    text = "; ".join(parts) + "."
    return f"{among}{text[0].lower()}{text[1:]}" if among else text


def notes(runs: Runs) -> list[str]:
    """What a reader must know of the runs: seeds, length of training, what is known in testing, mixed versions."""
    seeds = runs.runs.sort_values("seed").groupby("method")["seed"]
    texts = {method: f"{', '.join(map(str, s))} (n = {len(s)})" for method, s in seeds}
    if len(set(texts.values())) == 1:
        stated = f"every method: {texts.popitem()[1]}"
    else:
        stated = "; ".join(f"{method}: {texts[method]}" for method in runs.methods())
    score = runs.score
    lengths = _range(pd.concat([runs.runs["least_trained"], runs.runs["most_trained"]]))
    trained = f"{score.trained_in.capitalize()} trained per {score.task}: {lengths}"
    if score.chance:
        trained += f"; each {score.name} is the mean of {_range(runs.raw_scores()['n'])} {score.task}s played"
    return [
        f"Seeds of {stated}",
        *_too_few(seeds.count()[runs.methods()]),
        trained,
        *scenario(runs),
        *settings_by_method(runs),
        *_of_fewer_seeds({method: set(seeds.get_group(method)) for method in runs.methods()}),
        *([runs.orders.removesuffix(".")] if runs.orders else []),
        *_warnings([*mixed_settings(runs), *mixed_runs(runs), *unlike_data(runs)]),
    ]


def warnings_of_group(runs: Runs, group: str) -> list[str]:
    """What a group of variants do not share, but should: with each other, or with the experiment as it is."""
    names = runs.grouped_variants()[group]
    varied, together = runs.of(*names), runs.of(*names, runs.variants[names[0]].of)
    data = [*unlike_data(varied), *unlike_variants(runs, group)]
    return _warnings([*mixed_settings(varied), *mixed_variants(runs, group), *mixed_runs(together, group), *data])


def _warnings(texts: list[str]) -> list[str]:
    return [f"Warning: {text}" for text in texts]


def _of_fewer_seeds(seeds: dict[str, set[int]]) -> list[str]:
    """Over which seeds plasticity is, where they are not all of a method's."""
    alone = seeds.get(SINGLE_TASK, set())
    fewer = [f"{method} {len(s & alone)}" for method, s in seeds.items() if s - alone and s & alone]
    return [f"Plasticity is over the seeds of {SINGLE_TASK} alone: {', '.join(fewer)}"] if fewer else []


def _too_few(seeds: "pd.Series[int]") -> list[str]:
    """What there is not, for want of seeds of the methods."""
    few = seeds < SEEDS_OF_INTERVAL
    if not few.any():
        return []
    methods = "" if few.all() else f" of {', '.join(few.index[few])}"
    compared = few[~few.index.isin(REFERENCES)]
    if len(compared) < 2 or not compared.any():
        best = ""
    elif (~compared).sum() < 2:
        best = " or to tell which method is best: nothing is bold"
    else:
        best = " or to be bold, whatever their means"
    return [f"Fewer than {SEEDS_OF_INTERVAL} seeds{methods}: too few for an interval{best}"]


def format_rows(table: pd.DataFrame) -> Iterator[tuple[list[str], tuple[Cell, ...]]]:
    """Of each method its name and n, and its cells."""
    cells = zip(*(_format_column(table, column) for column in shown_columns(table)), strict=True)
    return zip(([str(method), str(n)] for method, n in table["n"].items()), cells, strict=True)


def _format_column(table: pd.DataFrame, column: TableColumn) -> list[Cell]:
    cells = []
    for row in table.to_dict("records"):
        numbers = (row[f"{column.name}_{statistic}"] * column.factor for statistic in ("mean", "std", "low", "high"))
        mean, std, low, high = ("" if pd.isna(x) else f"{x:z.{column.decimals}f}" for x in numbers)
        spread, interval = f" ± {std}" * bool(std), f"[{low}, {high}]" * bool(low)
        cells.append(Cell(f"{mean}{spread}" or "–", interval, best=bool(row.get(f"{column.name}_best"))))
    return cells


def _range(values: "pd.Series[int]") -> str:
    low, high = values.min(), values.max()
    return f"{low:,} to {high:,}" if low < high else f"{low:,}"


def _spread(mean: float, std: float) -> str:
    return f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def _names(values: "pd.Series[float]", value: float) -> str:
    """Of the methods that have this value; of many how many there are."""
    *names, last = map(str, values.index[values == value])
    if len(names) >= MOST_NAMED:
        return f"{len(names) + 1} methods"
    return f"{', '.join(names)} and {last}" if names else last
