"""The verdicts as text, CSV, Markdown and JSON."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from blip.claims.claim import Claim
from blip.claims.judging import FAIL, NOT_RUN, PASS, Verdict
from blip.files import atomic_write
from blip.results.markup import markdown_table, p_phrase, plain, to_csv
from blip.results.markup import measured as number

GUIDE = """\
# Claims

What this project claims, and whether it is so. Measured is the mean over n seeds (or what a check counted) [95 %
interval], of comparisons the mean difference between runs with one seed and p of its test, Holm-corrected over all
comparisons in this table. NOT RUN is what could not be measured here.
"""
HEADINGS = ("", "claim", "measured", "n", "expected", "source", "core-minutes", "note")


def write_report(verdicts: Sequence[Verdict], out: Path) -> None:
    """Write claims.csv, claims.md and claims.json."""
    rows = [row(verdict) for verdict in verdicts]
    counts = {name: sum(verdict.verdict == name for verdict in verdicts) for name in (PASS, FAIL, NOT_RUN)}
    whole = json.dumps({"counts": counts, "claims": [_without_nan(r) for r in rows]}, indent=1, ensure_ascii=False)
    files = {"claims.csv": to_csv(pd.DataFrame(rows)), "claims.md": markdown(verdicts), "claims.json": whole + "\n"}
    for name, content in files.items():
        atomic_write(out / name, content)


def row(verdict: Verdict) -> dict[str, Any]:
    """A claim and what became of it, as plain values."""
    claim = verdict.claim
    return {
        "id": claim.id,
        "sentence": claim.sentence,
        "source": claim.source,
        "verdict": verdict.verdict,
        "measured": verdict.measured,
        "unit": verdict.unit,
        "n": verdict.n,
        "low": verdict.interval.low,
        "high": verdict.interval.high,
        "p": verdict.p,
        "expected": expected(claim),
        "note": verdict.note,
        "core_minutes": claim.cost.core_minutes,
        "megabytes": claim.cost.megabytes,
    }


def expected(claim: Claim) -> str:
    """What must come out, in words."""
    if claim.equals is not None:
        return f"{claim.equals.value:g} ± {claim.equals.within:g}"
    if claim.other:
        place = f" on {claim.other.experiment}" if claim.other.experiment else ""
        return f"{'lower' if claim.less_than else 'higher'} than {claim.other.method}{place} ({claim.other.test} test)"
    return f"≤ {claim.at_most:g}" if claim.at_most is not None else f"≥ {claim.at_least:g}"


def text(verdicts: Sequence[Verdict]) -> str:
    """A line or two for each claim, and how many there are of each verdict."""
    lines = []
    for verdict in verdicts:
        lines.append(f"{verdict.verdict:<8}{verdict.claim.id}: {verdict.claim.sentence}")
        found = verdict.note or f"measured {measured(verdict)}, n = {verdict.n:,}; expected {expected(verdict.claim)}"
        lines.append(f"{'':8}{found}")
    counts = Counter(verdict.verdict for verdict in verdicts)
    return "\n".join([*lines, ", ".join(f"{counts[name]} {name}" for name in (PASS, FAIL, NOT_RUN))])


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A page with a table."""
    rows = [
        (
            verdict.verdict,
            plain(f"{verdict.claim.sentence} ({verdict.claim.id})"),
            plain(measured(verdict)),
            f"{verdict.n:,}" if verdict.n else "–",
            plain(expected(verdict.claim)),
            verdict.claim.source,
            f"{verdict.claim.cost.core_minutes:g}",
            plain(verdict.note),
        )
        for verdict in verdicts
    ]
    return f"{GUIDE}\n{markdown_table(rows, HEADINGS)}\n"


def measured(verdict: Verdict) -> str:
    """The number, its interval and p as far as they are there."""
    if math.isnan(verdict.measured):
        return "–"
    sign = "+" if verdict.claim.other else ""
    low, high = verdict.interval
    unit = verdict.unit
    interval = "" if math.isnan(low) else f" [{number(low, unit, sign)}, {number(high, unit, sign)}]"
    p = "" if math.isnan(verdict.p) else f", {p_phrase(verdict.p)}"
    return f"{number(verdict.measured, unit, sign)} {unit}{interval}{p}"


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no nan."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
