"""Choose a method's settings by validation images of the first tasks; test images are never looked at."""

import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote

from blip.config import Tuning, load_experiment, load_trial
from blip.errors import BlipError, DivergedError
from blip.experiment import Experiment
from blip.files import atomic_write, csv_text
from blip.record import are_numbers, tuned_table
from blip.results import load_runs, run_metrics
from blip.runs.train import Training, train_run


def tune(
    path: Path, overrides: Mapping[str, Any], method: str, asked: Tuning, out: Path, how: Training
) -> tuple[Path, dict[str, Any]]:
    """Train `method` with each combination of what is `asked` of it; the table's path and what is best.

    Best is the highest mean over seeds of the mean accuracy, after the last of the asked tasks, on the validation
    images of all of them; the first one of equals. Where training fails by the settings (`DivergedError`), the accuracy
    is 0. Finished trials are left alone, and stopped ones go on. The table becomes `<out>/<experiment>/<method>.csv`,
    with trials in a folder beside it.

    Raises BlipError for bad input, before anything is trained, and where every trial fails.
    """
    grid, overrides = asked.grids[method], {**overrides, **asked.set}
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    experiments = [load_trial(path, overrides, method, point, asked) for point in settings]
    folder = out / load_experiment(path, overrides).name
    rows = []
    for point, experiment in zip(settings, experiments, strict=True):
        name = ",".join(f"{key}={value}" for key, value in point.items())
        trial = folder / "trials" / quote(name, safe="=,")
        for seed in asked.seeds:
            rows.append({**point, "seed": seed, "accuracy": _accuracy(experiment, method, seed, trial, how)})
    scores = [mean(row["accuracy"] for row in rows if row.items() >= point.items()) for point in settings]
    if not any(scores):
        raise BlipError(f"{path}: {method}: every trial fails: expected other values of {', '.join(grid)}")
    best = settings[scores.index(max(scores))]
    table = tuned_table(out, folder.name, method)
    judged = [{**row, "chosen": int(row.items() >= best.items())} for row in rows]
    atomic_write(table, csv_text(judged, list(judged[0])))
    return table, best


def at_the_edge(grid: Mapping[str, list[Any]], best: Mapping[str, Any]) -> list[str]:
    """Settings whose best value is the least or the largest of three numbers or more: a better one may lie beyond."""
    return [
        key
        for key, values in grid.items()
        if len(values) > 2 and are_numbers(values) and best[key] in (min(values), max(values))
    ]


def _accuracy(experiment: Experiment, method: str, seed: int, out: Path, how: Training) -> float:
    try:
        folder = train_run(experiment, method, seed, out, how, weights=False)
    except DivergedError as error:
        print(error, file=sys.stderr)
        return 0.0
    return round(float(run_metrics(load_runs([folder]))["acc"].iloc[0]), 6)
