"""Synthetic run folders for the tests of blip.results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blip.record import GAME_TABLES, TABLES

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

    Bits and trace are empty but for methods named blip…. `changes` replace entries of run.json or of its
    provenance.
    """
    folder = root / experiment / method / f"seed{seed}"
    folder.mkdir(parents=True)
    R = R or [[0.9], [0.8, 0.9], [0.7, 0.8, 0.9]]
    rng = np.random.default_rng(seed)
    frozen = method.startswith("blip")
    provenance = {
        "commit": "c0ffee",
        "versions": {"python": "3.12", "torch": "2.6"},
        "cpu": "a CPU",
        "gpu": None,
        "threads": 1,
        "command": "blip train",
        "started": "2025-01-01T00:00:00",
        "finished": "2025-01-01T00:01:00",
    }
    run = {
        "experiment": experiment,
        "method": method,
        "seed": seed,
        "tasks": [{"name": f"task {t}", "classes": 2} for t in range(len(R))],
        "config": {},
        "max_bits": MAX_BITS if frozen else None,
        "provenance": provenance | {k: v for k, v in changes.items() if k in provenance},
    } | {k: v for k, v in changes.items() if k not in provenance}
    (folder / "run.json").write_text(json.dumps(run))
    accuracy = [(i, j, a, 1 - a, 100) for i, row in enumerate(R) for j, a in enumerate(row)]
    _write(folder, "accuracy", accuracy)
    _write(folder, "history", _history(len(R), rng))
    cost = [(t, phase, 30.0) for t in range(len(R)) for phase in ("train", "evaluate")]
    _write(folder, "cost", [*cost, (-1, "peak_memory_mb", 512.0)])
    bits, trace = _bits(len(R), rng) if frozen else ([], [])
    _write(folder, "bits", bits)
    _write(folder, "trace", trace)
    return folder


def write_game_run(
    root: Path, method: str = "blip", seed: int = 0, *, R: list[list[float]], random: list[float], **changes: Any
) -> Path:
    """Write one finished run on games with mean returns `R`, and those of the random agent; its folder.

    Each game is learned in four updates of 32 steps and evaluated after two of them and in the end.
    """
    games = ["Boxing", "Krull", "Riverraid"][: len(R)]
    config = {"games": games, "ppo": {"environments": 4, "rollout": 8}}
    folder = write_run(root, "atari", method, seed, R, config=config, **changes)
    _write(folder, "history", [])
    returns, updates = [], []
    for i, row in enumerate(R):
        returns += [(i, 0, i, "random", episode, random[i] + shift, 9) for episode, shift in enumerate((-1, 1))]
        before = [*(R[i - 1] if i else []), random[i]]
        for update in (0, 2, 4):
            reached = [old + (new - old) * update / 4 for old, new in zip(before, row, strict=True)]
            for j, mean in enumerate(reached):
                returns += [(i, update, j, "greedy", episode, mean + 4 * episode - 2, 9) for episode in (0, 1)]
        updates += [(i, update, 1e-4, 0.0, 0.1, 1.0, 0.0, 0.0, 5.0, 1) for update in range(4)]
    _write(folder, "returns", returns)
    _write(folder, "updates", updates)
    _write(folder, "replays", [(i, j, 7, a, "abc") for i, row in enumerate(R) for j, a in enumerate(row)])
    return folder


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
            trace += [(task, layer, i, np.float32(value[i]), bound, k[i]) for i in range(4)]
            low = min(start + 2 * task, MAX_BITS - 1)
            bits += [(task, layer, low, 60), (task, layer, low + 1, 40)]
    return bits, trace


def _write(folder: Path, name: str, rows: list[Any]) -> None:
    pd.DataFrame(rows, columns=list((TABLES | GAME_TABLES)[name])).to_csv(folder / f"{name}.csv", index=False)
