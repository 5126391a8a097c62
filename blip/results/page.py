"""One page of a suite: what was run, claims, tables, charts and games, in a single file that asks for nothing else."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, FiniteFloat, NonNegativeInt, ValidationError

from blip.errors import BlipError
from blip.files import atomic_write, read_bytes
from blip.results.charts import CONFIG, Palette, Spec
from blip.results.comparison import compare
from blip.results.loading import Runs
from blip.results.markup import measured
from blip.results.needed import needed
from blip.results.page_sections import Beside, duration, experiment_section, group_section, links, minus
from blip.results.page_style import HEAT_STEPS, page_colours
from blip.results.tables import warnings_of_group
from blip.schema import first_problem

TEMPLATES = Path(__file__).parent / "templates"
BUNDLE = "window.vegaEmbed = vegaEmbed;"
"""What the page needs of Vega, Vega-Lite and Vega-Embed."""


class JudgedClaim(BaseModel):
    """A claim and what became of it (`blip.claims`); a number that there is not is None."""

    id: str
    sentence: str
    verdict: Literal["PASS", "FAIL", "NOT RUN"]
    measured: FiniteFloat | None
    unit: str
    n: NonNegativeInt
    low: FiniteFloat | None
    high: FiniteFloat | None
    p: FiniteFloat | None
    expected: str
    source: str
    note: str


def write_page(runs: Runs, out: Path, title: str, claims: Path | None = None, beside: Path | None = None) -> Path:
    """Write the page to `out`, with the verdicts of `claims`, a file that `blip claims` wrote.

    What lies in the folder `beside`, by default the page's, as the workflow lays it is linked (`tables/`, `figures/`)
    or shown (`games/`, and `claims/claims.json` where no other is given). Raises BlipError where that folder or a
    package that fills or draws the page is missing, or the claims cannot be read.
    """
    folder = out.parent if beside is None else beside
    if beside is not None and not beside.is_dir():
        raise BlipError(f"{beside}: no such folder, expected one with tables/, figures/ or games/")
    if claims is None and (found := folder / "claims/claims.json").is_file():
        claims = found
    away = os.path.relpath(folder.resolve(), out.parent.resolve())
    linked = Beside(folder, "" if away == "." else f"{Path(away).as_posix()}/")
    atomic_write(out, render(runs, title, linked, read_claims(claims) if claims else []))
    return out


def render(runs: Runs, title: str, beside: Beside, claims: Sequence[JudgedClaim] = ()) -> str:
    """The page's HTML; the same runs and the same files beside them give the same text."""
    environment = needed("jinja2").Environment(
        loader=needed("jinja2").FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"minus": minus, "number": measured}
    palette, charts = Palette(runs.methods()), list[Spec]()
    compared = compare(runs)
    sections = [
        experiment_section(runs.of(name), compared[compared["experiment"] == name], palette, charts, beside)
        for name in runs.ungrouped()
    ]
    sections += [
        group_section(runs.of(*names), group, warnings_of_group(runs, group), palette, charts, beside)
        for group, names in runs.groups().items()
    ]
    light, dark = page_colours(runs.methods())
    bundle, script = _bundle(), (TEMPLATES / "page.js").read_text()
    text: str = environment.get_template("page.html").render(
        title=title,
        facts=facts(runs),
        claims=claims,
        sections=sections,
        downloads=links(beside, "tables", ["tables.md", "*.csv", "comparison.*"]),
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


def read_claims(path: Path) -> list[JudgedClaim]:
    """The claims and their verdicts in a file that `blip claims` wrote."""
    try:
        rows = json.loads(read_bytes(path))["claims"]
        return [JudgedClaim.model_validate({name: row[name] for name in JudgedClaim.model_fields}) for row in rows]
    except ValidationError as error:
        raise BlipError(f"{path}: expected what `blip claims` writes: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlipError(f"{path}: expected what `blip claims` writes, in JSON: {error!r}") from None


def facts(runs: Runs) -> list[tuple[str, list[str]]]:
    """What was run: a name and what is to be said of it."""
    records = list(runs.records.values())
    made = [record.provenance for record in records]
    hardware = [f"{p.gpu or p.cpu}, {p.threads} CPU thread{'s' * (p.threads > 1)}" for p in made]
    kinds = {"real": "real data", "stand-in": "stand-in data"}
    return [
        ("Experiments", [*runs.ungrouped(), *runs.groups()]),
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


def _ranges(numbers: "pd.Series[int]") -> str:
    """Such as 0–4, 7."""
    values = sorted(set(numbers))
    starts = [n for n in values if n - 1 not in values]
    ends = [n for n in values if n + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script: str = needed("vl_convert").javascript_bundle(BUNDLE)
    if "</script" in script.lower():  # would end the element that it stands in
        raise BlipError("vl-convert-python: this version's script cannot stand in a page")
    return script
