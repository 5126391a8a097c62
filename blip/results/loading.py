"""Run folders: find them, check them, and put their tables side by side in long format."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from blip.errors import BlipError
from blip.files import regular
from blip.record import COST, RECORD, RunRecord, Score, Table, Variant, read_record, unlike_written
from blip.results.matrix import score_matrix

KEYS = ["experiment", "method", "seed"]
SINGLE_TASK, JOINT = "single-task", "joint"
REFERENCES = (SINGLE_TASK, JOINT)
"""Methods that do not learn continually: what a task gives without the others, and with all of them at once."""
METHOD_ORDER = (
    *("blip", "ewc", "imm-mode", "lwf", "si", "mas", "hat", "packnet", "gpm"),
    *("sgd-frozen", "sgd", *REFERENCES),
)
# What the runs of one experiment should share, and what to call it when they do not.
SHARED = {
    "commit": "commits",
    "python": "Python versions",
    "torch": "PyTorch versions",
    "cpu": "CPU models",
    "gpu": "GPU models",
    "threads": "numbers of CPU threads",
    "tasks": "numbers of tasks",
    "data": "kinds of data",
    "products": "libraries of float32 products",
}


@dataclass(frozen=True)
class Runs:
    """Long tables of many runs; each row starts with experiment, method and seed. Tasks are counted from 0."""

    records: dict[tuple[str, str, int], RunRecord]
    """What each run says of itself, by experiment, method and seed."""
    tables: dict[str, pd.DataFrame]
    """What was measured, by name of the table; each has the columns that its runs say."""
    folders: dict[tuple[str, str, int], Path]
    """Where each of them was loaded from."""
    selected_from: "Runs | None" = None
    """All that were loaded, where these are only some of them."""

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run (see `_row`)."""
        return pd.DataFrame([_row(record) for record in self.records.values()])

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Of each experiment."""
        return {record.experiment: record.score for record in self.records.values()}

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Of those experiments in which a setting is varied."""
        return {r.experiment: variant for r in self.records.values() if (variant := r.variant)}

    def experiments(self) -> list[str]:
        """Names of the experiments, sorted."""
        return sorted(self.runs["experiment"].unique())

    def groups(self) -> dict[str, list[str]]:
        """Experiments that differ in varied settings alone, two or more, by what they are called together."""
        return {group: names for group, names in self.grouped_variants().items() if len(names) > 1}

    def grouped_variants(self) -> dict[str, list[str]]:
        """All variants by what those of the same settings are called together; where two settings are called the same
        (the `strength` of two methods), by their whole keys."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in self.experiments():
            if name in self.variants:
                variant = self.variants[name]
                groups.setdefault((variant.group, variant.of, *variant.settings), []).append(name)
        short = [group for group, *_ in groups]
        return {
            group if short.count(group) == 1 else ".".join([of, *keys]): names
            for (group, of, *keys), names in groups.items()
        }

    def ungrouped(self) -> list[str]:
        """The experiments in no group: a table and figures are of each, or of a group."""
        grouped = {name for names in self.groups().values() for name in names}
        return [name for name in self.experiments() if name not in grouped]

    def methods(self) -> list[str]:
        """Names of the methods in the order of tables and figures."""
        return method_order(self.runs["method"])

    def of(self, *experiments: str) -> "Runs":
        """The runs of these experiments."""
        selected = {name: t[t["experiment"].isin(experiments)] for name, t in self.tables.items()}
        return Runs(
            {key: record for key, record in self.records.items() if record.experiment in experiments},
            {name: table for name, table in selected.items() if len(table)},
            self.folders,
            self.selected_from or self,
        )

    def without(self, keys: Set[tuple[str, str, int]]) -> "Runs":
        """All runs but these, by experiment, method and seed, as if they had not been loaded."""
        if not keys:
            return self
        kept = {
            name: table[[key not in keys for key in table[KEYS].itertuples(index=False, name=None)]]
            for name, table in self.tables.items()
        }
        records = {key: record for key, record in self.records.items() if key not in keys}
        return Runs(records, {name: table for name, table in kept.items() if len(table)}, self.folders)

    def reference(self) -> "Runs":
        """The runs that relative scores of one experiment are relative to: its own, or of a variant those of the
        experiment as it is, so that all variants are on one scale; where there are none, those of all its variants."""
        name, loaded = self.experiments()[0], self.selected_from or self
        if name not in self.variants:
            return loaded.of(name)
        of = self.variants[name].of
        return loaded.of(*([of] if of in loaded.scores else [n for n, v in loaded.variants.items() if v.of == of]))

    @property
    def score(self) -> Score:
        """What the runs of one experiment measure of a task."""
        return self.scores[self.experiments()[0]]

    @property
    def tasks(self) -> list[str]:
        """Names of one experiment's tasks, in the order of its first run of most tasks; it may differ between seeds."""
        return [task.name for task in max((r.tasks for r in self.records.values()), key=len)]

    @property
    def orders(self) -> str:
        """A sentence where one experiment's tasks, or their order, differ between seeds, else empty: a task's number
        does then not stand for the same task in all runs."""
        longest, task = len(self.tasks), self.score.task
        orders = {names for r in self.records.values() if len(names := tuple(t.name for t in r.tasks)) == longest}
        what = f"their order of {task}s" if len({frozenset(names) for names in orders}) == 1 else f"their {task}s"
        said = f"Seeds differ in {what}: {task} 1 is the first that each learned, not one and the same."
        return said if len(orders) > 1 else ""

    def raw_scores(self) -> pd.DataFrame:
        """Columns task_learned, task, score, n of the runs of one experiment, as they were measured."""
        table = self.tables[self.score.table].rename(columns={self.score.column: "score"})
        return table[[*KEYS, "task_learned", "task", "score", "n"]]

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

    A folder without a record is unfinished: it is left out, with a line on stderr.
    """
    folders: dict[Path, Path] = {}  # by resolved path, so that overlapping paths count once
    for path in map(Path, paths):
        if not path.exists():
            raise BlipError(f"{path}: no such folder, expected run folders")
        found = [below for below in _walked(path) if (below / RECORD).exists() or re.match("seed[0-9]", below.name)]
        folders = {folder.resolve(): folder for folder in found} | folders
    finished = {folder for folder in folders.values() if (folder / RECORD).exists()}
    for folder in sorted({*folders.values()} - finished):
        print(f"warning: {folder}: unfinished run (no {RECORD}), left out", file=sys.stderr)
    return sorted(finished)


def _walked(folder: Path) -> Iterator[Path]:
    """A folder and all below it, through links too, each once.

    Raises BlipError where one cannot be read: a run that is not seen would be missing.
    """
    seen: set[str] = set()

    def refuse(error: OSError) -> NoReturn:
        raise BlipError(f"{error.filename}: cannot be read: {error.strerror}") from None

    for where, below, _ in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(where)) in seen:
            below.clear()  # a link to what was walked already, or to what it is in
            continue
        seen.add(real)
        yield Path(where)


def load_runs(paths: Iterable[Path | str]) -> Runs:
    """Read every finished run at or below `paths`.

    Raises BlipError where no run is found, a file cannot be read, lacks a column or is not as its run wrote it, the
    scores are incomplete, two folders claim to be the same run, or the runs of one experiment measure different things.
    """
    paths = list(paths)
    folders = find_runs(paths)
    if not folders:
        raise BlipError(f"{', '.join(map(str, paths))}: no finished runs, expected {RECORD} and tables")
    tables: dict[str, dict[tuple[Any, ...], pd.DataFrame]] = {}
    scores: dict[str, Score] = {}
    records: dict[tuple[str, str, int], RunRecord] = {}
    seen: dict[tuple[str, str, int], Path] = {}
    varied: dict[str, dict[str, Any]] = {}
    for folder in folders:
        record = read_record(folder)
        key = (record.experiment, record.method, record.seed)
        if key in seen:
            raise BlipError(f"{folder}: the same run as {seen[key]}, expected one of them")
        seen[key], records[key] = folder, record
        if scores.setdefault(record.experiment, record.score) != record.score:
            raise BlipError(f"{folder}: measures {record.score.name}, other runs of {record.experiment} do not")
        try:
            settings = record.variant.settings if record.variant else {}
        except BlipError as error:
            raise BlipError(f"{folder / RECORD}: {error}") from None
        if varied.setdefault(record.experiment, settings) != settings:
            raise BlipError(f"{folder}: varies other settings than other runs of {record.experiment}")
        for table in record.tables:
            tables.setdefault(table.name, {})[key] = _read_table(folder / table.file, table)
        _check_scores(folder, record, tables)
        if changed := unlike_written(folder, record, [table.file for table in record.tables]):
            raise BlipError(f"{folder}: {', '.join(changed)}: expected what its run wrote ({RECORD} has the checksums)")
    long = {name: pd.concat(t, names=[*KEYS, "row"]).droplevel("row").reset_index() for name, t in tables.items()}
    return Runs(records, long, seen)


def mixed_runs(runs: Runs, group: str = "") -> list[str]:
    """One warning per experiment and property (commit, version, …) that its runs do not share; or for all of a `group`
    of variants together."""
    return [
        f"{experiment} mixes {len(values)} {plural}: {', '.join(values)}"
        for experiment, rows in (runs.runs.assign(experiment=group) if group else runs.runs).groupby("experiment")
        for column, plural in SHARED.items()
        if len(values := sorted(rows[column].astype(str).unique())) > 1
    ]


def unlike_data(runs: Runs) -> list[str]:
    """One warning per experiment and seed of which methods were trained on different data: runs are paired by seed."""
    sums: dict[tuple[str, int], dict[str, list[str]]] = {}
    for (experiment, method, seed), record in runs.records.items():
        if record.data:
            sums.setdefault((experiment, seed), {}).setdefault(record.data, []).append(method)
    return [
        f"{experiment} has other data of seed {seed} for "
        + " than for ".join(", ".join(method_order(methods)) for methods in by_sum.values())
        for (experiment, seed), by_sum in sorted(sums.items())
        if len(by_sum) > 1
    ]


def unlike_variants(runs: Runs, group: str) -> list[str]:
    """A warning where runs of a group of variants learned other data than those of the experiment as it is, with the
    same method and seed, though no setting of the data is varied."""
    names = runs.grouped_variants()[group]
    variant = runs.variants[names[0]]
    if any(key.split(".")[0] == "data" for key in variant.settings):
        return []
    other = [
        f"{method} seed {seed}"
        for (experiment, method, seed), record in runs.records.items()
        if experiment in names
        and (whole := runs.records.get((variant.of, method, seed)))
        and record.data
        and whole.data not in ("", record.data)
    ]
    return [f"{group} has other data than {variant.of}: {', '.join(sorted(set(other)))}"] if other else []


def _row(record: RunRecord) -> dict[str, Any]:
    """The row of one run in `Runs.runs`."""
    made_by, trained = record.provenance, [task.trained for task in record.tasks]
    return {
        "experiment": record.experiment,
        "method": record.method,
        "seed": record.seed,
        "tasks": len(record.tasks),
        "least_trained": min(trained),
        "most_trained": max(trained),
        "data": "stand-in" if record.stand_in else "real",
        "commit": made_by.commit,
        "cpu": made_by.cpu,
        "gpu": made_by.gpu or "none",
        "threads": made_by.threads,
        "python": made_by.versions.get("python", "unknown"),
        "torch": made_by.versions.get("torch", "unknown"),
        "products": made_by.products,
        "peak_memory_mb": made_by.peak_memory_mb,
        "shared_numbers": record.network.shared,
        "numbers_by_task": record.network.by_task,
    }


def _check_scores(folder: Path, record: RunRecord, tables: dict[str, dict[tuple[Any, ...], pd.DataFrame]]) -> None:
    score, key = record.score, (record.experiment, record.method, record.seed)
    file = folder / f"{score.table}.csv"
    for needed in filter(None, (score.table, score.chance, COST.name)):
        if key not in tables.get(needed, {}):
            raise BlipError(f"{folder / RECORD}: the table {needed} is not among its tables")
    try:
        found = len(score_matrix(tables[score.table][key], score.column))
    except KeyError as error:
        raise BlipError(f"{file}: expected the column {error}") from None
    except BlipError as error:
        raise BlipError(f"{file}: {error}") from error
    values = tables[score.table][key][score.column]
    if score.chance is None and not values.between(0, 1).all():
        raise BlipError(f"{file}: {score.column}: expected shares from 0 to 1")
    if found != len(record.tasks):
        raise BlipError(f"{file}: expected {len(record.tasks)} tasks as in {RECORD}, found {found}")
    seconds = tables[COST.name][key].get("seconds")
    if seconds is None or seconds.dtype != "float64" or not np.isfinite(seconds).all():
        raise BlipError(f"{folder / COST.file}: seconds: expected a number of each phase")
    if score.chance:
        by_chance = tables[score.chance][key]
        known = set(by_chance.loc[np.isfinite(by_chance[score.column]), "task"])
        if missing := sorted(set(range(found)) - known):
            file = folder / f"{score.chance}.csv"
            raise BlipError(f"{file}: {score.column}: expected a number of every {score.task}, none of {missing[0]}")


def _read_table(file: Path, table: Table) -> pd.DataFrame:
    """One CSV file of a run: its columns, with their types."""
    expected = f"{file}: expected the columns {', '.join(table.columns)}"
    types = {name: column.type for name, column in table.columns.items()}
    try:
        frame = pd.read_csv(regular(file), dtype=types)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise BlipError(f"{expected}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    missing = [name for name in table.columns if name not in frame]
    if missing:
        raise BlipError(f"{expected}; missing: {', '.join(missing)}")
    if frame.empty:
        raise BlipError(f"{file}: expected a row for each measurement, found none")
    return frame[list(table.columns)]
