"""A suite's folder for the tests of its page: runs with names that mean harm, and what the workflow lays beside it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from run_folders import forgetting_matrix, write_game_run, write_run

from blip.record import TaskRecord
from blip.results import Runs, load_runs, write_tables

HOSTILE = "<script>document.title = 'broken'</script>"
TITLE = f"A suite {HOSTILE}"
CLAIMS = {
    "counts": {"PASS": 1, "FAIL": 0, "NOT RUN": 1},
    "claims": [
        {
            "id": "less",
            "sentence": f"BLIP forgets less than fine-tuning does, whatever the order of tasks {HOSTILE}",
            "source": "the paper, and the published code",
            "verdict": "PASS",
        }
        | {
            "measured": -0.3,
            "unit": "points",
            "n": 5,
            "low": -0.4,
            "high": -0.2,
            "p": 0.01,
            "expected": "lower than sgd, by Student's paired test",
        }
        | {"note": "", "core_minutes": 1.0, "megabytes": 0.0},
        {
            "id": "bits",
            "sentence": "The same bits",
            "source": "docs",
            "verdict": "NOT RUN",
            "measured": None,
            "unit": "",
        }
        | {"n": 0, "low": None, "high": None, "p": None, "expected": "0 ± 0", "note": "no numbers to compare with"},
    ],
}


def write_suite(root: Path) -> None:
    """Five methods on five tasks, all but one with five seeds; games; tables, figures, pictures and claims."""
    tasks = [TaskRecord(name=HOSTILE if t == 1 else f"task {t}", outputs=2, trained=8) for t in range(5)]
    for method, drop, seeds in (
        ("blip", 0.01, 5),
        ("sgd", 0.1, 5),
        ("ewc", 0.02, 5),
        ("my-way", 0.05, 5),
        ("joint", 0, 1),
    ):
        for seed in range(seeds):
            R = forgetting_matrix(5, 0.95, drop, seed=seed + 100 * len(method))
            write_run(root / "runs", "mnist5", method, seed, R, tasks=tasks, command="blip train mnist5 --raw raw")
    for method, R in (("blip", [[110.0], [110.0, 200.0]]), ("sgd", [[110.0], [35.0, 300.0]])):
        write_game_run(root / "runs", method, R=R, random=[10.0, 100.0])
        folder = root / "games/atari" / method
        folder.mkdir(parents=True)
        for name in ("1-1", "2-1", "2-2"):
            Image.fromarray(np.zeros((210, 160), np.uint8)).save(folder / f"{name}.gif")
    write_tables(load_runs([root / "runs"]), root / "tables")
    for name in ("matrix.pdf", "matrix.png"):
        (root / "figures/mnist5").mkdir(parents=True, exist_ok=True)
        (root / "figures/mnist5" / name).touch()
    (root / "claims").mkdir()
    (root / "claims/claims.json").write_text(json.dumps(CLAIMS))


def suite_runs(root: Path) -> Runs:
    """Of the suite; one experiment has a name that no run folder can have."""
    return renamed(load_runs([root / "runs"]), "atari", HOSTILE)


def renamed(runs: Runs, old: str, new: str) -> Runs:
    def name(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(experiment=frame["experiment"].replace(old, new))

    records = [
        record.model_copy(update={"experiment": new}) if record.experiment == old else record
        for record in runs.records.values()
    ]
    return Runs(
        {(record.experiment, record.method, record.seed): record for record in records},
        {key: name(table) for key, table in runs.tables.items()},
        {},
    )
