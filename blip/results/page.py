"""One page of a suite: what was run, claims, tables, charts and games, in a single file that asks for nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from blip.errors import BlipError
from blip.files import atomic_write, regular
from blip.record import RunRecord
from blip.results.charts import (
    CONFIG,
    Palette,
    Spec,
    average_chart,
    bits_charts,
    matrix_charts,
    paired_charts,
    return_charts,
)
from blip.results.comparison import compare
from blip.results.comparison_table import HEADINGS, comparison_rows
from blip.results.loading import Runs
from blip.results.metrics import reference_scores, run_metrics, score_name, summarise
from blip.results.replays import replay_rows
from blip.results.style import HEAT_STEPS, page_colours
from blip.results.tables import Cell, format_rows, headings, method_table, notes, sentence, shown_columns

TEMPLATES = Path(__file__).parent / "templates"
BUNDLE = "window.vegaEmbed = vegaEmbed;"
"""What the page needs of Vega, Vega-Lite and Vega-Embed."""


class Figure(NamedTuple):
    """A chart: what it shows, its number on the page, and the method that it belongs to, if it is of one."""

    title: str
    chart: int
    method: str = ""


class Row(NamedTuple):
    """Of the table of an experiment: cells, and the numbers by which they are sorted."""

    method: str
    cells: list[tuple[Cell, float | str]]


class Claim(NamedTuple):
    """A claim and what became of it (`blip.claims`); a number that there is not is None."""

    id: str
    sentence: str
    verdict: str
    measured: float | None
    unit: str
    n: int
    low: float | None
    high: float | None
    p: float | None
    expected: str
    source: str
    note: str


class Picture(NamedTuple):
    """A game that was played, and what was returned."""

    source: str
    label: str
    text: str


def write_page(runs: Runs, out: Path, title: str, claims: Path | None = None) -> Path:
    """Write the page to `out`, with the verdicts of `claims`, a file that `blip claims` wrote.

    What lies beside the page as the workflow lays it is linked (`tables/`, `figures/`) or shown (`games/`, and
    `claims/claims.json` where no other is given). Raises BlipError where a package that fills or draws it is missing,
    or the claims cannot be read.
    """
    if claims is None and (beside := out.parent / "claims/claims.json").is_file():
        claims = beside
    atomic_write(out, render(runs, title, out.parent, read_claims(claims) if claims else []))
    return out


def render(runs: Runs, title: str, beside: Path, claims: Sequence[Claim] = ()) -> str:
    """The page's HTML; the same runs and the same files beside it give the same text."""
    environment = _needed("jinja2").Environment(
        loader=_needed("jinja2").FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = _minus
    palette, charts = Palette(runs.methods()), list[Spec]()
    compared = compare(runs)
    sections = [
        _section(runs.of(name), compared[compared["experiment"] == name], palette, charts, beside)
        for name in runs.experiments()
    ]
    light, dark = page_colours(runs.methods())
    bundle, script = _bundle(), (TEMPLATES / "page.js").read_text()
    text: str = environment.get_template("page.html").render(
        title=title,
        facts=facts(runs),
        claims=claims,
        sections=sections,
        downloads=_links(beside, "tables", ["tables.md", "*.csv", "comparison.*"]),
        charts={"config": CONFIG, "specs": charts},
        style=(TEMPLATES / "page.css").read_text(),
        light=light,
        dark=dark,
        heat=range(HEAT_STEPS),
        scripts=[bundle, script],
        hashes=[base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (bundle, script)],
        licences=(TEMPLATES / "licences.txt").read_text(),
    )
    return text


def read_claims(path: Path) -> list[Claim]:
    """The claims and their verdicts in a file that `blip claims` wrote."""
    try:
        rows = json.loads(regular(path).read_bytes())["claims"]
        return [Claim(**{name: row[name] for name in Claim._fields}) for row in rows]
    except OSError as error:
        raise BlipError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlipError(f"{path}: expected what `blip claims` writes, in JSON: {error!r}") from None


def facts(runs: Runs) -> list[tuple[str, list[str]]]:
    """What was run: a name and what is to be said of it."""
    records = list(runs.records.values())
    made = [record.provenance for record in records]
    hardware = [f"{p.gpu or p.cpu}, {p.threads} CPU thread{'s' * (p.threads > 1)}" for p in made]
    kinds = {"real": "real data", "stand-in": "stand-in data"}
    return [
        ("Experiments", runs.experiments()),
        ("Methods", runs.methods()),
        ("Seeds", [_ranges(runs.runs["seed"])]),
        ("Runs", [str(len(records))]),
        ("Data", _once(kinds[kind] for kind in runs.runs["data"])),
        ("Hardware", _once(hardware)),
        (
            "Software",
            _once(f"Python {p.versions.get('python', '?')}, PyTorch {p.versions.get('torch', '?')}" for p in made),
        ),
        ("Commit", _once(p.commit for p in made)),
        ("Total time", [duration(runs.tables["cost"]["seconds"].sum())]),
        ("Measured", [" to ".join(_once([min(p.started for p in made)[:10], max(p.finished for p in made)[:10]]))]),
    ]


def duration(seconds: float) -> str:
    """In the two largest units that there are."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _section(runs: Runs, compared: pd.DataFrame, palette: Palette, charts: list[Spec], beside: Path) -> dict[str, Any]:
    """What the template says of one experiment; its charts are added to `charts`."""

    def figure(title: str, spec: Spec, method: str = "") -> Figure:
        charts.append(spec)
        return Figure(title, len(charts) - 1, method)

    name, methods = runs.experiments()[0], runs.methods()
    metrics = run_metrics(runs)
    table = method_table(summarise(metrics), metrics).loc[methods]
    matrices, ends = matrix_charts(runs)
    bits, most = bits_charts(runs)
    average = average_chart(runs, palette)
    metric_names = {"acc": f"ACC ({score_name(runs)})", "forgetting": "Forgetting"}
    return {
        "name": name,
        "stand_in": runs.stand_in(),
        "about": _about(runs),
        "sentence": _minus(sentence(runs, table)),
        "notes": notes(runs),
        "methods": [(method, palette.variables[method]) for method in methods],
        "headings": headings(runs, table),
        "rows": _rows(runs, table),
        "score": score_name(runs),
        "task": runs.score.task,
        "tasks": runs.tasks,
        "average": figure("", average) if average else None,
        "returns": [figure(g, s) for g, s in zip(runs.tasks, return_charts(runs, palette), strict=False)],
        "matrices": [figure(method, matrices[method], method) for method in methods if method in matrices],
        "ends": [f"{end:g} %" for end in ends],
        "bits": [figure(method, bits[method], method) for method in methods if method in bits],
        "most": most,
        "paired": [figure(metric_names[m], spec) for m, spec in paired_charts(compared, palette).items()],
        "compared": (HEADINGS[1:], [[_minus(cell) for cell in row[1:]] for row in comparison_rows(compared)]),
        "games": [(method, grid) for method in methods if (grid := _games(runs, method, beside))],
        "by_chance": _by_chance(runs),
        "runs": [_run(runs, record) for record in runs.records.values()],
        "tables": _links(beside, "tables/tables", [f"{name}.*", f"{name}_{runs.score.name}s.csv", f"{name}_iqm.csv"]),
        "figures": _links(beside, f"figures/{name}", ["*.pdf", "*.png"]),
    }


def _about(runs: Runs) -> str:
    """Data and tasks of an experiment."""
    record = next(iter(runs.records.values()))
    count, task = len(runs.tasks), runs.score.task
    text = f"{count} {task}{'s' * (count > 1)}: {', '.join(runs.tasks)}"
    data = record.config.get("data")
    sources = data.get("sources", []) if isinstance(data, dict) else []
    named = [str(source.get("name")) for source in sources if isinstance(source, dict)]
    return f"{text}. Data: {', '.join(named)}." if named else f"{text}."


def _rows(runs: Runs, table: pd.DataFrame) -> list[Row]:
    """The table, with the signs of numbers as they are typeset."""
    columns = shown_columns(table)
    rows = []
    for ((method, n), cells), values in zip(format_rows(table), table.to_dict("records"), strict=True):
        numbers = [values[f"{column.name}_mean"] for column in columns]
        keys = ["" if pd.isna(number) else float(f"{number:.9g}") for number in numbers]
        shown = [cell._replace(text=_minus(cell.text), interval=_minus(cell.interval)) for cell in cells]
        rows.append(Row(method, [(Cell(n, "", False), int(n)), *zip(shown, keys, strict=True)]))
    return rows


def _run(runs: Runs, record: RunRecord) -> dict[str, str]:
    """Where a run comes from."""
    cost, made = runs.tables["cost"], record.provenance
    mine = (cost["method"] == record.method) & (cost["seed"] == record.seed)
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


def _games(runs: Runs, method: str, beside: Path) -> list[list[Picture | None]]:
    """The moving pictures of a method that lie in games/: in row i, column j game j after learning i games."""
    if "replays" not in runs.tables:
        return []
    rows, games = replay_rows(runs, method), runs.tasks
    folder = beside / "games" / runs.experiments()[0] / method
    grid: list[list[Picture | None]] = [[None] * len(games) for _ in games]
    for (i, j), row in rows.items():
        if (file := folder / f"{i + 1}-{j + 1}.gif").is_file():
            source = f"data:image/gif;base64,{base64.b64encode(file.read_bytes()).decode()}"
            text = f"{row['return']:g}, mean {row['score']:.1f} (n = {row['n']})"
            grid[i][j] = Picture(source, f"{games[j]} after learning {i + 1}, {method}", text)
    return grid if any(map(any, grid)) else []


def _by_chance(runs: Runs) -> str:
    if not runs.score.chance:
        return ""
    returns = zip(runs.tasks, reference_scores(runs)["chance"], strict=True)
    return ", ".join(f"{game} {value:.1f}" for game, value in returns)


def _links(beside: Path, folder: str, patterns: Iterable[str]) -> list[tuple[str, str]]:
    """Name and relative address of the files in a folder beside the page."""
    found = {path.name for pattern in patterns for path in (beside / folder).glob(pattern)}
    return [(name, quote(f"{folder}/{name}")) for name in sorted(found)]


def _ranges(numbers: "pd.Series[int]") -> str:
    """Such as 0–4, 7."""
    values = sorted(set(numbers))
    starts = [n for n in values if n - 1 not in values]
    ends = [n for n in values if n + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def _minus(text: str) -> str:
    """Its negative numbers as they are typeset."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script: str = _needed("vl_convert").javascript_bundle(BUNDLE)
    if "</script" in script.lower():  # would end the element that it stands in
        raise BlipError("vl-convert-python: this version's script cannot stand in a page")
    return script


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise BlipError("the page needs further packages: pip install 'blip-continual[workflow]'") from None
