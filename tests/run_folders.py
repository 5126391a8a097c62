"""Synthetic run folders for the tests of blip.results."""

from pathlib import Path
from typing import Any

import numpy as np

from blip import record
from blip.files import sha256
from blip.games.game_experiment import GameExperiment
from blip.games.measurements import MEAN_RETURNS, RANDOM_RETURNS, REPLAYS, RETURNS, UPDATES
from blip.images.image_experiment import ImageExperiment
from blip.images.image_trainer import ACCURACY, HISTORY
from blip.methods.blip import BITS, TRACE
from blip.record import COST, Provenance, Row, Table, TaskRecord

MAX_BITS = 20


def write_run(
    root: Path,
    experiment: str = "mnist5",
    method: str = "blip",
    seed: int = 0,
    R: list[list[float]] | None = None,
    **changes: Any,
) -> Path:
    """Write one finished run with accuracy matrix `R` (rows of the lower triangle); its folder.

    Bits and trace are there for methods named blip…. `changes` replace entries of run.json or of its provenance.
    """
    R = R or [[0.9], [0.8, 0.9], [0.7, 0.8, 0.9]]
    rng = np.random.default_rng(seed)
    measured: list[tuple[Table, list[tuple[Any, ...]]]] = [
        (ACCURACY, [(i, j, a, 1 - a, 100) for i, row in enumerate(R) for j, a in enumerate(row)]),
        (HISTORY, _history(len(R), rng)),
    ]
    tasks = [TaskRecord(name=f"task {t}", outputs=2, trained=8 + t) for t in range(len(R))]
    values = {"score": ImageExperiment.score, "tasks": tasks} | changes
    return _write(root, experiment, method, seed, [*measured, *_common(method, len(R), rng)], values)


def write_game_run(
    root: Path, method: str = "blip", seed: int = 0, *, R: list[list[float]], random: list[float], **changes: Any
) -> Path:
    """Write one finished run on games with mean returns `R`, and those of the random agent; its folder.

    Each game is learned in four updates of 32 steps and evaluated after two of them and in the end.
    """
    games = ["Boxing", "Krull", "Riverraid"][: len(R)]
    rng = np.random.default_rng(seed)
    returns: list[tuple[Any, ...]] = []
    updates: list[tuple[Any, ...]] = []
    for i, row in enumerate(R):
        start = i * 4 * 32
        returns += [(i, 0, start, i, "random", episode, random[i] + shift, 9) for episode, shift in enumerate((-1, 1))]
        before = [*(R[i - 1] if i else []), random[i]]
        for update in (0, 2, 4):
            reached = [old + (new - old) * update / 4 for old, new in zip(before, row, strict=True)]
            for j, mean in enumerate(reached):
                place = (i, update, start + update * 32, j)
                returns += [(*place, "greedy", episode, mean + 4 * episode - 2, 9) for episode in (0, 1)]
        updates += [(i, update, 1e-4, 0.0, 0.1, 1.0, 0.0, 0.0, 5.0, 1) for update in range(4)]
    matrix = [(i, j, a) for i, row in enumerate(R) for j, a in enumerate(row)]
    measured = [
        (MEAN_RETURNS, [(*place, 100) for place in matrix]),
        (RANDOM_RETURNS, [(i, random[i], 2) for i in range(len(R))]),
        (RETURNS, returns),
        (UPDATES, updates),
        (REPLAYS, [(i, j, 7, a, "abc") for i, j, a in matrix]),
    ]
    tasks = [TaskRecord(name=game, outputs=18, trained=4 * 32) for game in games]
    values = {"score": GameExperiment.score, "tasks": tasks} | changes
    return _write(root, "atari", method, seed, [*measured, *_common(method, len(R), rng)], values)


def _common(method: str, tasks: int, rng: np.random.Generator) -> list[tuple[Table, list[tuple[Any, ...]]]]:
    cost = (COST, [(t, phase, 30.0) for t in range(tasks) for phase in ("train", "evaluate")])
    return [cost, *zip((BITS, TRACE), _bits(tasks, rng), strict=True)] if method.startswith("blip") else [cost]


def _write(
    root: Path,
    experiment: str,
    method: str,
    seed: int,
    measured: list[tuple[Table, list[tuple[Any, ...]]]],
    values: Row,
) -> Path:
    provenance = {
        "commit": "c0ffee",
        "versions": {"python": "3.12", "torch": "2.6"},
        "cpu": "a CPU",
        "gpu": None,
        "threads": 1,
        "products": "default",
        "command": "blip train",
        "started": "2025-01-01T00:00:00",
        "finished": "2025-01-01T00:01:00",
        "peak_memory_mb": 512.0,
    }
    made_by = Provenance(**(provenance | {k: v for k, v in values.items() if k in provenance}))
    about = {
        "format": record.FORMAT,
        "files": {},
        "experiment": experiment,
        "method": method,
        "seed": seed,
        "stand_in": False,
        "network": record.Numbers(shared=9, by_task=[2] * len(values["tasks"])),
        "tables": [table for table, _ in measured],
        "config": {},
        "key": "0",
        "provenance": made_by,
        **{k: v for k, v in values.items() if k not in provenance},
    }
    folder = root / experiment / method / f"seed{seed}"
    rows = {table.name: [table.row(*row) for row in rows] for table, rows in measured}
    record.write_run(folder, record.RunRecord.model_validate(about), b"", rows)
    return folder


def sign(folder: Path) -> None:
    """Write into run.json the checksums of the folder's files as they are now, as if the run had written them."""
    known = record.read_record(folder)
    files = {name: sha256(folder / name) for name in known.files}
    (folder / record.RECORD).write_text(known.model_copy(update={"files": files}).model_dump_json())


def forgetting_matrix(tasks: int, learned: float, drop: float, seed: int) -> list[list[float]]:
    """Accuracies `learned` on the diagonal that fall by about `drop` with every later task."""
    rng = np.random.default_rng(seed)
    return [
        [float(np.clip(learned - drop * (i - j) + rng.normal(0, 0.01), 0, 1)) for j in range(i + 1)]
        for i in range(tasks)
    ]


def _history(tasks: int, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    return [
        (task, epoch, 0.01, loss, loss * 1.1, 1 - loss / 2)
        for task in range(tasks)
        for epoch, loss in enumerate(np.exp(-np.arange(8 + task) / 4) + 0.02 * rng.random())
    ]


def _bits(tasks: int, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Frozen bits that grow with each task, and values that keep to the rule of BLIP."""
    bits, trace = [], []
    for layer, start in (("0.weight", 3), ("0.bias", 1), ("2.weight", 5)):
        bound, value, k = 0.5, np.zeros(4), np.zeros(4, dtype=int)
        for task in range(tasks):
            radius = bound * 0.5**k
            value = np.clip(value + rng.uniform(-radius, radius), -bound, bound)
            k = np.minimum(k + rng.integers(0, start + 1, 4), MAX_BITS)
            value = bound * np.round(value / bound * 2.0**k) / 2.0**k * (k > 0)
            trace += [(task, layer, i, np.float32(value[i]), bound, k[i], MAX_BITS) for i in range(4)]
            low = min(start + 2 * task, MAX_BITS - 1)
            bits += [(task, layer, low, 60, MAX_BITS), (task, layer, low + 1, 40, MAX_BITS)]
    return bits, trace
