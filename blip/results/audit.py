"""Whether BLIP kept its promise, from what its runs recorded: no anchor moved further than its frozen bits allow."""

import pandas as pd

from blip.errors import BlipError
from blip.results.loading import KEYS, Runs

ALLOWED = 1.0
"""Largest move of an anchor, in units of B·2^-k of the k before (paper, section 3.4)."""


def audit(runs: Runs) -> pd.DataFrame:
    """The moves table of all runs that freeze bits, with a column `verdict`, PASS or FAIL, for each task and layer.

    It fails where an anchor moved by more than it may, or a parameter lost frozen bits. Raises BlipError where no run
    freezes bits, or one that does has no record of its moves.
    """
    if "bits" not in runs.tables:
        raise BlipError("no run freezes bits: expected runs of blip")
    frozen = runs.tables["bits"][KEYS].drop_duplicates()
    moves = runs.tables.get("moves", pd.DataFrame(columns=[*KEYS, "layer", "largest_move", "lost_bits"]))
    told = pd.MultiIndex.from_frame(moves[KEYS])
    for key in frozen.itertuples(index=False, name=None):
        if key not in told:
            raise BlipError(f"{key[0]}/{key[1]}/seed{key[2]}: no moves.csv, which older runs have not: train it again")
    kept = (moves["largest_move"] <= ALLOWED) & (moves["lost_bits"] == 0)
    return moves.assign(verdict=kept.map({True: "PASS", False: "FAIL"}))


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
