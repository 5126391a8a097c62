"""What the benchmarks have in common: paired timing, and the table that they print."""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from blip.claims.timing import Work, paired_ratios
from blip.devices import keep_freed_memory
from blip.training.products import AUTO, choose, computed_by, processor_name


def paired_ratio(
    ours: Work, other: Work, pairs: int = 15, calls: int = 20, clock: Callable[[], float] = time.process_time
) -> tuple[float, float, float]:
    """Median, lowest and highest of `paired_ratios`."""
    ratios = paired_ratios(ours, other, pairs, calls, clock)
    return statistics.median(ratios), min(ratios), max(ratios)


def report(
    what: str,
    ratio: tuple[float, float, float],
    target: float | None,
    n: int,
    limit: str = "",
    *,
    at_least: bool = False,
) -> None:
    """One row of the table: the median ratio, its range, what it should reach, and what nothing can go beyond."""
    median, low, high = ratio
    wanted = ""
    if target is not None:
        verdict = "" if (median >= target if at_least else median <= target) else ", MISSED"
        wanted = f"{'≥' if at_least else '≤'} {target}{verdict}"
    measured = f"{median:.2f} ({low:.2f} to {high:.2f}), n = {n}"
    print(f"| {what} | {measured} | {wanted} | {limit} |", flush=True)


def hardware() -> str:
    """The processor and the versions, to print above the numbers."""
    threads = torch.get_num_threads()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor_name()}, {threads} thread(s), {versions}, float32 products: {PRODUCTS}"


PRODUCTS = choose(AUTO, torch.device("cpu"), 2**30)
"""As in a run of a network that is not small."""
_settings = ExitStack()


def main(threads: int = 1) -> None:
    """Common start of every benchmark."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    _settings.enter_context(computed_by(PRODUCTS))
    print(f"\n{Path(sys.argv[0]).name}: {hardware()}\n", flush=True)
    print("| what | measured: median (range) | target | limit |\n|---|---|---|---|", flush=True)
