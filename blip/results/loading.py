"""Run folders: find them, check them, and put their tables side by side in long format."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from blip.errors import BlipError
from blip.record import GAME_TABLES, TABLES
from blip.results.metrics import KEYS, accuracy_matrix

REFERENCES = ("single-task", "joint")
"""Methods that do not learn continually: what a task gives without the others, and with all of them at once."""
METHOD_ORDER = ("blip", "ewc", "imm-mode", "lwf", "sgd-frozen", "sgd", *REFERENCES)
INTEGERS = (
    *("task_learned", "task", "n", "epoch", "frozen_bits", "parameters", "index"),
    *("task_training", "update", "episode", "length", "games", "environment_seed"),
)
STRINGS = ("layer", "phase", "agent", "actions")
TYPES = dict.fromkeys(INTEGERS, "int64") | dict.fromkeys(STRINGS, "str")  # others: float64
# What the runs of one experiment should share, and what to call it when they do not.
SHARED = {
    "commit": "commits",
    "python": "Python versions",
    "torch": "PyTorch versions",
    "cpu": "CPU models",
    "gpu": "GPU models",
    "tasks": "numbers of tasks",
    "data": "kinds of data",
}


@dataclass(frozen=True)
class Runs:
    """Long tables of many runs; each row starts with experiment, method and seed.

    `runs` has one row per run (see `_read_run`); the others have the columns of the CSV file of that name, see TABLES.
    Tasks are counted from 0. `bits` and `trace` may be empty; of classification, `returns`, `updates` and `replays`
    are, and of games `history` is, and their "accuracy" is a mean return.
    """

    runs: pd.DataFrame
    accuracy: pd.DataFrame
    history: pd.DataFrame
    cost: pd.DataFrame
    bits: pd.DataFrame
    trace: pd.DataFrame
    returns: pd.DataFrame
    updates: pd.DataFrame
    replays: pd.DataFrame

    def experiments(self) -> list[str]:
        """Names of the experiments, sorted."""
        return sorted(self.runs["experiment"].unique())

    def methods(self) -> list[str]:
        """Names of the methods in the order of tables and figures."""
        return method_order(self.runs["method"])

    def of(self, experiment: str) -> "Runs":
        """The runs of one experiment."""
        frames = {field.name: getattr(self, field.name) for field in fields(self)}
        return Runs(**{name: f[f["experiment"] == experiment] for name, f in frames.items()})

    def games(self) -> list[str]:
        """The games of these runs of one experiment, in the order of learning; none for classification."""
        return list(self.runs["games"].iloc[0])

    def stand_in(self) -> bool:
        """Whether the data of any run only stand in for the real ones."""
        return bool((self.runs["data"] == "stand-in").any())

    def title(self) -> str:
        """Name of the experiment, marked where data are not the real ones."""
        return self.experiments()[0] + (" (stand-in data)" if self.stand_in() else "")


def method_order(methods: Iterable[str]) -> list[str]:
    """BLIP, then the published baselines, then all others by name; each once."""
    unique = set(methods)
    return [m for m in METHOD_ORDER if m in unique] + sorted(unique.difference(METHOD_ORDER))


def find_runs(paths: Iterable[Path | str]) -> list[Path]:
    """Finished run folders at or below `paths`, sorted, each once.

    A folder without accuracy.csv is unfinished: it is left out, with a line on stderr.
    """
    folders: dict[Path, Path] = {}  # by resolved path, so that overlapping paths count once
    for path in map(Path, paths):
        if not path.exists():
            raise BlipError(f"{path}: no such folder, expected run folders")
        found = [file.parent for file in path.rglob("run.json")]
        found += [folder for folder in path.rglob("seed[0-9]*") if folder.is_dir()]
        folders = {folder.resolve(): folder for folder in found} | folders
    finished = {folder for folder in folders.values() if (folder / "accuracy.csv").exists()}
    for folder in sorted({*folders.values()} - finished):
        print(f"warning: {folder}: unfinished run (no accuracy.csv), left out", file=sys.stderr)
    return sorted(finished)


def load_runs(paths: Iterable[Path | str]) -> Runs:
    """Read every finished run at or below `paths`.

    Raises BlipError where no run is found, a file cannot be read or lacks a column, an accuracy matrix is incomplete,
    or two folders claim to be the same run.
    """
    paths = list(paths)
    folders = find_runs(paths)
    if not folders:
        raise BlipError(f"{', '.join(map(str, paths))}: no finished runs, expected run.json and accuracy.csv")
    rows = []
    tables: dict[str, dict[tuple[Any, ...], pd.DataFrame]] = {name: {} for name in TABLES | GAME_TABLES}
    seen: dict[tuple[Any, ...], Path] = {}
    for folder in folders:
        row = _read_run(folder / "run.json")
        key = tuple(row[name] for name in KEYS)
        if key in seen:
            raise BlipError(f"{folder}: the same run as {seen[key]}, expected one of them")
        seen[key] = folder
        rows.append(row)
        for name, columns in (TABLES | GAME_TABLES).items():
            there = name in TABLES or row["games"]
            tables[name][key] = _read_table(folder / f"{name}.csv", columns) if there else _typed(columns)
        try:
            found = len(accuracy_matrix(tables["accuracy"][key]))
        except BlipError as error:
            raise BlipError(f"{folder / 'accuracy.csv'}: {error}") from error
        if found != row["tasks"]:
            raise BlipError(f"{folder / 'accuracy.csv'}: expected {row['tasks']} tasks as in run.json, found {found}")
    long = {name: pd.concat(t, names=[*KEYS, "row"]).droplevel("row").reset_index() for name, t in tables.items()}
    return Runs(pd.DataFrame(rows), **long)


def mixed_runs(runs: Runs) -> list[str]:
    """One warning per experiment and property (commit, version, …) that its runs do not share."""
    return [
        f"{experiment} mixes {len(values)} {plural}: {', '.join(values)}"
        for experiment, rows in runs.runs.groupby("experiment")
        for column, plural in SHARED.items()
        if len(values := sorted(rows[column].astype(str).unique())) > 1
    ]


def _read_run(file: Path) -> dict[str, Any]:
    """The row of one run in `Runs.runs`."""
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        provenance = run["provenance"]
        return {
            **{key: run[key] for key in KEYS},
            "tasks": len(run["tasks"]),
            "games": tuple(run["config"].get("games", ())),
            "steps_per_update": _steps_per_update(run["config"]),
            "data": "stand-in" if run.get("stand_in") else "real",
            "max_bits": run["max_bits"] or 0,
            **{key: provenance[key] for key in ("commit", "cpu")},
            **{key: provenance["versions"][key] for key in ("python", "torch")},
            "gpu": provenance["gpu"] or "none",
        }
    except KeyError as error:
        raise BlipError(f"{file}: expected the key {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise BlipError(f"{file}: expected the JSON of a run: {_first_line(error)}") from error


def _steps_per_update(config: dict[str, Any]) -> int:
    """Of all environments together; 0 for classification."""
    return config["ppo"]["environments"] * config["ppo"]["rollout"] if "games" in config else 0


def _typed(columns: tuple[str, ...]) -> pd.DataFrame:
    """An empty table."""
    return pd.DataFrame({column: pd.Series(dtype=TYPES.get(column, "float64")) for column in columns})


def _read_table(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """One CSV file of a run: these columns, with their types."""
    expected = f"{file}: expected the columns {', '.join(columns)}"
    try:
        table = pd.read_csv(file, dtype={column: TYPES.get(column, "float64") for column in columns})
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise BlipError(f"{expected}: {_first_line(error)}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise BlipError(f"{expected}; missing: {', '.join(missing)}")
    return table[list(columns)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
