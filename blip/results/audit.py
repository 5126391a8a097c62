"""Whether BLIP kept its promise, from what its runs recorded: no anchor moved further than its frozen bits allow."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd

from blip.errors import BlipError
from blip.record import changed_files
from blip.results.loading import KEYS, Runs, load_runs

ALLOWED = 1.0
"""Largest move of an anchor, in units of B·2^-k of the k before (paper, section 3.4)."""


def audit(paths: Iterable[Path | str]) -> pd.DataFrame:
    """The moves table of all runs at or below `paths` that freeze bits, with a column `verdict`, PASS or FAIL.

    It fails where an anchor moved by more than it may, or a parameter lost frozen bits. Raises BlipError where runs
    cannot be loaded (`load_runs`), none freezes bits, or one that does has no record of its moves in some task and
    layer.
    """
    runs = load_runs(paths)
    for key, folder in runs.folders.items():
        if changed := changed_files(folder, runs.records[key], []):  # weights too, where they are there
            raise BlipError(f"{folder}: {', '.join(changed)}")
    if "bits" not in runs.tables:
        raise BlipError("no run freezes bits: expected runs of blip")
    moves = _complete_moves(runs)
    kept = moves["largest_move"].between(0, ALLOWED) & (moves["lost_bits"] == 0)
    return moves.assign(verdict=kept.map({True: "PASS", False: "FAIL"}))


def _complete_moves(runs: Runs) -> pd.DataFrame:
    """The moves table, once it is seen to have every task and layer of all runs that freeze bits."""
    for key, what in untold_moves(runs).items():
        raise BlipError("{}/{}/seed{}: ".format(*key) + what)
    return runs.tables["moves"]


def untold_moves(runs: Runs) -> dict[tuple[str, str, int], str]:
    """What is missing, of each run that freezes bits but does not say how far anchors moved in all tasks and layers."""
    if "bits" not in runs.tables:
        return {}
    moves = runs.tables.get("moves", pd.DataFrame(columns=[*KEYS, "task_learned", "layer"]))
    told = {key: set(zip(rows["task_learned"], rows["layer"], strict=True)) for key, rows in moves.groupby(KEYS)}
    layers = runs.tables["bits"].groupby(KEYS)["layer"].unique()
    untold = {}
    for key, record in runs.records.items():
        if key in layers.index and key not in told:
            untold[key] = "no moves.csv: train it again"
        elif key in layers.index:
            expected = product(range(len(record.tasks)), layers[key])
            for task, layer in [place for place in expected if place not in told[key]][:1]:
                untold[key] = f"moves.csv: expected every task and layer, found no task {task} of {layer}"
    return untold


def report(audited: pd.DataFrame) -> str:
    """A line for each run, task and layer, and the result of all."""
    lines = [
        f"{row['verdict']}  {row['experiment']}/{row['method']}/seed{row['seed']}  task {row['task_learned'] + 1}  "
        f"{row['layer']}: largest move {row['largest_move']:.4g} of {ALLOWED:g} allowed"
        + (f", {row['lost_bits']} parameters lost frozen bits" if row["lost_bits"] else "")
        for row in audited.to_dict("records")
    ]
    failed = int((audited["verdict"] == "FAIL").sum())
    return "\n".join([*lines, f"{'FAIL' if failed else 'PASS'}: {len(lines) - failed} of {len(lines)} kept"])
