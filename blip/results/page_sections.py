"""What the page says of one experiment, and of one group of variants, as plain values for its template."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from blip.record import RunRecord
from blip.results import ablations
from blip.results.charts import (
    Palette,
    Spec,
    average_chart,
    bits_charts,
    loss_chart,
    matrix_charts,
    paired_charts,
    return_charts,
    variation_charts,
)
from blip.results.comparison_table import HEADINGS, comparison_rows
from blip.results.loading import KEYS, Runs
from blip.results.metrics import reference_scores, score_name
from blip.results.replays import picture_path, replay_rows
from blip.results.style import band
from blip.results.tables import Cell, format_rows, headings, legend, method_table, notes, sentence, shown_columns

VARIED = ("acc", "forgetting", "capacity")
"""Measures of which there is a chart against a varied setting."""
MOST_NAMED = 10
"""Tasks that are named; of more, the first so many."""


class Beside(NamedTuple):
    """The folder with what a page links or shows, and its address as the page has it, relative."""

    folder: Path
    address: str = ""


class Figure(NamedTuple):
    """A chart: what it shows, its number on the page, and the method that it belongs to, if it is of one."""

    title: str
    chart: int
    method: str = ""


class Row(NamedTuple):
    """Of a table that is sorted: what its first column says, then cells and by what each is sorted."""

    name: str
    cells: list[tuple[Cell, float | str]]


class Picture(NamedTuple):
    """A game that was played, and what was returned."""

    source: str
    label: str
    text: str


def experiment_section(
    runs: Runs, compared: pd.DataFrame, palette: Palette, charts: list[Spec], beside: Beside
) -> dict[str, Any]:
    """Of one experiment; its charts are added to `charts`, and files are looked for `beside` them."""
    name, methods, score = runs.experiments()[0], runs.methods(), runs.score
    table = method_table(runs)
    files = [f"{name}.*", f"{name}_{score.name}s.csv", f"{name}_bits.csv", f"{name}_iqm.csv"]
    return {
        "name": name,
        "stand_in": runs.stand_in(),
        "about": _about(runs),
        "sentence": minus(sentence(runs, table)),
        "note": _note([legend(table), *notes(runs)]),
        "methods": [(method, palette.samples[method]) for method in methods],
        "headings": headings(runs, table),
        "rows": _rows(table),
        "score": score_name(runs),
        "task": score.task,
        "tasks": runs.tasks,
        "band": band(runs),
        "intervals": bool(compared["low"].notna().any()),
        **_figures(runs, compared, palette, charts),
        "compared": (HEADINGS[1:], [[minus(cell) for cell in row[1:]] for row in comparison_rows(compared)]),
        "games": [(method, grid) for method in methods if (grid := _games(runs, method, beside))],
        "by_chance": _by_chance(runs),
        "runs": [_run(runs, record) for record in runs.records.values()],
        "files": [*links(beside, "tables/tables", files), *links(beside, f"figures/{name}", ["*.pdf", "*.png"])],
    }


def group_section(
    runs: Runs, group: str, warnings: list[str], palette: Palette, charts: list[Spec], beside: Beside
) -> dict[str, Any]:
    """Of experiments that differ in varied settings alone: one table, and charts where a single setting is varied."""
    frame = ablations.ablation(runs)
    table = ablations.summary(frame)
    (first, *others), measures = ablations.shown(table)
    rows = []
    for row in table.to_dict("records"):
        cells = [(Cell(str(row[name]), "", False), _key(row[name])) for name in others]
        for m in measures:
            cells.append((Cell(minus(ablations.cell(row, m)), "", False), _key(row[f"{m}_percent_mean"])))
        rows.append(Row(str(row[first]), cells))
    drawn = variation_charts(frame, [m for m in VARIED if m in measures], palette)
    charts += drawn.values()
    numbers = range(len(charts) - len(drawn), len(charts))
    of_seeds = "Mean ± standard deviation over n seeds" if table["n"].max() > 1 else "Of one seed"
    return {
        "name": group,
        "stand_in": runs.stand_in(),
        "about": f"{ablations.about(runs, [first, *others])}.",
        "note": _note([of_seeds, *warnings]),
        "band": band(runs),
        "headings": [first, *others, *(ablations.MEASURES[m] for m in measures)],
        "rows": rows,
        "varied": [Figure(ablations.MEASURES[m], number) for m, number in zip(drawn, numbers, strict=True)],
        "runs": [_run(runs, record) for record in runs.records.values()],
        "files": [
            *links(beside, "tables/tables", [f"{group}.*"]),
            *links(beside, f"figures/{group}", ["*.pdf", "*.png"]),
        ],
    }


def _note(parts: list[str]) -> str:
    text = ". ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _figures(runs: Runs, compared: pd.DataFrame, palette: Palette, charts: list[Spec]) -> dict[str, Any]:
    """The charts of an experiment, and the ends of their colours."""

    def figure(title: str, spec: Spec, method: str = "") -> Figure:
        charts.append(spec)
        return Figure(title, len(charts) - 1, method)

    methods = runs.methods()
    matrices, ends = matrix_charts(runs)
    bits, most = bits_charts(runs)
    average, losses = average_chart(runs, palette), loss_chart(runs, palette)
    names = {"acc": f"ACC ({score_name(runs)})", "forgetting": "Forgetting"}
    return {
        "average": figure("", average) if average else None,
        "returns": [figure(g, s) for g, s in zip(runs.tasks, return_charts(runs, palette), strict=False)],
        "losses": figure("", losses) if losses else None,
        "matrices": [figure(method, matrices[method], method) for method in methods if method in matrices],
        "ends": [f"{end:g} %" for end in ends],
        "bits": [figure(method, bits[method], method) for method in methods if method in bits],
        "most": most,
        "paired": [figure(names[metric], spec) for metric, spec in paired_charts(compared, palette).items()],
    }


def _about(runs: Runs) -> str:
    """Data and tasks of an experiment."""
    record = next(iter(runs.records.values()))
    count, task = len(runs.tasks), runs.score.task
    named = [*runs.tasks[:MOST_NAMED], "…"] if count > MOST_NAMED + 2 else runs.tasks
    text = f"{count} {task}{'s' * (count > 1)}: {', '.join(named)}"
    data = record.config.get("data")
    sources = data.get("sources", []) if isinstance(data, dict) else []
    named = [str(source.get("name")) for source in sources if isinstance(source, dict)]
    return f"{text}. Data: {', '.join(named)}." if named else f"{text}."


def _rows(table: pd.DataFrame) -> list[Row]:
    """The table, with the signs of numbers as they are typeset."""
    columns = shown_columns(table)
    rows = []
    for ((method, n), cells), values in zip(format_rows(table), table.to_dict("records"), strict=True):
        numbers = [values[f"{column.name}_mean"] for column in columns]
        keys = [_key(number) for number in numbers]
        shown = [cell._replace(text=minus(cell.text), interval=minus(cell.interval)) for cell in cells]
        rows.append(Row(method, [(Cell(n, "", False), int(n)), *zip(shown, keys, strict=True)]))
    return rows


def _key(value: Any) -> float | str:
    """By which a cell is sorted: a number, or a text; empty where there is none."""
    return value if isinstance(value, str) else "" if pd.isna(value) else float(f"{value:.9g}")


def _run(runs: Runs, record: RunRecord) -> dict[str, str]:
    """Where a run comes from."""
    cost, made = runs.tables["cost"], record.provenance
    mine = (cost[KEYS] == [record.experiment, record.method, record.seed]).all(axis="columns")
    return {
        "method": record.method,
        "seed": str(record.seed),
        "time": duration(cost.loc[mine, "seconds"].sum()),
        "memory": f"{made.peak_memory_mb:,.0f} MB",
        "hardware": made.gpu or made.cpu,
        "commit": made.commit,
        "data": record.data[:12] or "–",
        "key": record.key,
        "command": made.command,
    }


def _games(runs: Runs, method: str, beside: Beside) -> list[list[Picture | None]]:
    """The moving pictures of a method that lie in games/: in row i, column j game j after learning i games."""
    if "replays" not in runs.tables:
        return []
    rows, games = replay_rows(runs, method), runs.tasks
    grid: list[list[Picture | None]] = [[None] * len(games) for _ in games]
    for (i, j), row in rows.items():
        file = beside.folder / "games" / picture_path(runs.experiments()[0], method, i, j)
        if file.is_file():
            source = f"data:image/gif;base64,{base64.b64encode(file.read_bytes()).decode()}"
            text = f"{row['return']:g}, mean {row['score']:.1f} (n = {row['n']})"
            grid[i][j] = Picture(source, f"{games[j]} after learning {i + 1}, {method}", text)
    return grid if any(map(any, grid)) else []


def _by_chance(runs: Runs) -> str:
    if not runs.score.chance:
        return ""
    returns = zip(runs.tasks, reference_scores(runs)["chance"], strict=True)
    return ", ".join(f"{game} {value:.1f}" for game, value in returns)


def links(beside: Beside, folder: str, patterns: Iterable[str]) -> list[tuple[str, str]]:
    """Name and relative address of the files in a folder there."""
    found = {path.name for pattern in patterns for path in (beside.folder / folder).glob(pattern)}
    return [(name, quote(f"{beside.address}{folder}/{name}")) for name in sorted(found)]


def duration(seconds: float) -> str:
    """In the two largest units that there are."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def minus(text: str) -> str:
    """Its negative numbers as they are typeset."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)
