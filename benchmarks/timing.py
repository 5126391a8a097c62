"""Paired timing: the things compared run in turn, so that a shared machine's moods hit them alike."""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

Work: TypeAlias = Callable[[], object]


def paired_ratio(
    ours: Work, other: Work, pairs: int = 15, calls: int = 20, clock: Callable[[], float] = time.process_time
) -> tuple[float, float, float]:
    """Median, lowest and highest ratio of the times of `calls` calls, over `pairs` pairs in alternating order.

    In CPU time, unless another clock is given: a device needs the one on the wall.
    """
    for function in (ours, other):
        for _ in range(3):
            function()
    ratios = []
    for i in range(pairs):
        times = {}
        for function in (ours, other) if i % 2 else (other, ours):
            start = clock()
            for _ in range(calls):
                function()
            times[function] = clock() - start
        ratios.append(times[ours] / times[other])
    return statistics.median(ratios), min(ratios), max(ratios)


def report(what: str, ratio: tuple[float, float, float], target: float, n: int) -> None:
    """One line: the median ratio, its range, what it should reach."""
    median, low, high = ratio
    verdict = "reached" if median <= target else "MISSED"
    print(f"{what}: {median:.3f} ({low:.3f} to {high:.3f}, n = {n}), target ≤ {target}: {verdict}", flush=True)


def hardware() -> str:
    """The processor and the versions, to print above the numbers."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread(s), Python {platform.python_version()}, torch {torch.__version__}"


def main(threads: int = 1) -> None:
    """Common start of every benchmark."""
    torch.set_num_threads(threads)
    print(f"{Path(sys.argv[0]).name}: {hardware()}", flush=True)
