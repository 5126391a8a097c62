"""The report: everything in one JSON file, and the same to be read in one Markdown file."""

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from blip.files import atomic_write


def write(folder: Path, steps: list[dict[str, Any]]) -> None:
    """`report.json` and `report.md`, whole at any moment."""
    atomic_write(folder / "report.json", json.dumps({"steps": steps}, indent=1) + "\n")
    parts = ["# Check of a GPU", "", *_missed(steps)]
    for step in steps:
        parts += [f"## {step['name']}: {step['about']}", "", f"{step['state']}, {step['seconds']:.0f} s", ""]
        if step["rows"]:
            parts += [tabulate([_cells(r) for r in step["rows"]], COLUMNS, "github", disable_numparse=True), ""]
        if step["message"]:
            parts += ["```", step["message"], "```", ""]
    atomic_write(folder / "report.md", "\n".join(parts) + "\n")


COLUMNS = ("what", "value", "range", "target", "note")


def _missed(steps: list[dict[str, Any]]) -> list[str]:
    """What was not reached or has failed, before everything else."""
    lines = [f"* {s['name']}: {s['state']}" for s in steps if s["state"] not in ("done", "waiting")]
    rows = [(s["name"], r) for s in steps for r in s["rows"]]
    lines += [
        f"* {n}: {r['what']}: {_number(r['value'])}, target {r['target']}"
        for n, r in rows
        if not r.get("reached", True)
    ]
    lines += [f"* {name}: {r['what']}: failed" for name, r in rows if r["value"] == "failed"]
    return [*(lines or ["Every target that was looked at was reached."]), ""]


def _cells(row: dict[str, Any]) -> list[str]:
    spread = f"{_number(row['low'])} to {_number(row['high'])}, n = {row['n']}" if "low" in row else ""
    target = row.get("target", "")
    if "reached" in row:
        target += ": reached" if row["reached"] else ": MISSED"
    value = f"{_number(row['value'])} {row['unit']}".strip()
    return [_flat(cell) for cell in (row["what"], value, spread, target, row.get("note", ""))]


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | str) -> str:
    if isinstance(value, str) or value == int(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
