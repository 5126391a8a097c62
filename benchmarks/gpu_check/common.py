"""What the steps of the check share: where they run, how long, and what a row of the report is."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(1, str(ROOT / "benchmarks"))  # what the other benchmarks have
EXPERIMENTS = ROOT / "config" / "experiments"
Row = dict[str, Any]
ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    """Where a step runs; `quick` makes everything tiny, to see that it runs."""

    device: torch.device
    quick: bool
    raw: Path
    deadline: float
    """By `time.monotonic`: rows that would be too late are left out."""

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """That `work` takes until the device has done it."""
        self.sync()
        start = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - start


def row(what: str, value: float | str, unit: str = "", **more: Any) -> Row:
    """A line of the report; `more`: `low`, `high` and `n` of a median, `target` ("≤ 1.05"), `note`."""
    found: Row = {"what": what, "value": value, "unit": unit} | more
    if "target" in more and not isinstance(value, str):
        sign, bound = more["target"].split()
        found["reached"] = value <= float(bound) if sign == "≤" else value >= float(bound)
    return found


ROWS = "BLIP_GPU_CHECK_ROWS"
"""Names the file that a step's rows are appended to."""


def emit(found: Row) -> None:
    """Hand a row to the process that writes the report."""
    with Path(os.environ[ROWS]).open("a") as file:
        file.write(json.dumps(found) + "\n")


def median(what: str, values: list[float], unit: str = "", **more: Any) -> Row:
    """The median of `values`, with its range."""
    return row(what, statistics.median(values), unit, low=min(values), high=max(values), n=len(values), **more)


def in_turn(works: dict[str, Callable[[], object]], setting: Setting) -> dict[str, list[float]]:
    """Seconds of each, ROUNDS times, one after another in each round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 if setting.quick else ROUNDS):
        for name, work in works.items():
            taken[name].append(setting.seconds(work))
    return taken


def ratios(taken: dict[str, list[float]], over: str, under: str) -> list[float]:
    return [a / b for a, b in zip(taken[over], taken[under], strict=True)]


@contextmanager
def stand_ins(device: torch.device) -> Iterator[None]:
    """On a CPU, the tests' stand-in for CUDA graphs."""
    if device.type == "cuda":
        yield
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from stand_in_cuda import stand_in_cuda

    with stand_in_cuda():
        yield


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def peak_mib(setting: Setting) -> Iterator[Row]:
    """Peak memory since the counter was last reset, in rows without a name; none on a CPU."""
    if setting.device.type == "cuda":
        yield row("peak memory allocated", torch.cuda.max_memory_allocated() / 2**20, "MiB")
        yield row("peak memory reserved", torch.cuda.max_memory_reserved() / 2**20, "MiB")
