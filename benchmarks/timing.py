"""What the benchmarks have in common: paired timing, and the table that they print."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

from blip.claims.timing import Work, paired_ratios
from blip.devices import keep_freed_memory, processor_name
from blip.training.products import AUTO, choose, computed_by


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
    measured = f"{median:.2f} ({low:.2f} to {high:.2f}), n = {n}"
    row(what, measured, target is None or (median >= target if at_least else median <= target), target, limit, at_least)


def row(
    what: str, measured: str, reached: bool, target: float | None = None, limit: str = "", at_least: bool = False
) -> None:
    """One row of the table in words: what was measured, and whether it reached its target, where there is one."""
    asked = "" if target is None else f"{'≥' if at_least else '≤'} {target}{'' if reached else ', MISSED'}"
    print(f"| {what} | {measured} | {asked} | {limit} |", flush=True)


def hardware() -> str:
    """The processor and the versions, to print above the numbers."""
    threads = torch.get_num_threads()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor_name()}, {threads} thread(s), {versions}, float32 products: {PRODUCTS}"


ONE_TABLE = "BLIP_ONE_TABLE"
"""In the environment where all benchmarks are one table, which has its head already."""
PRODUCTS = choose(AUTO, torch.device("cpu"), 2**30)
"""As in a run of a network that is not small."""
_settings = ExitStack()


def main(threads: int = 1) -> None:
    """Common start of every benchmark."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    _settings.enter_context(computed_by(PRODUCTS))
    if ONE_TABLE not in os.environ:
        head()


def head() -> None:
    """What stands above the rows."""
    print(f"\n{hardware()}\n", flush=True)
    print("| what | measured: median (range) | target | limit |\n|---|---|---|---|", flush=True)
