"""Paired timing: the things compared run in turn, so that a shared machine's moods hit them alike."""

import time
from collections.abc import Callable
from typing import TypeAlias

Work: TypeAlias = Callable[[], object]


def paired_ratios(
    ours: Work, other: Work, pairs: int = 15, calls: int = 20, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Ratios of the times of `calls` calls, over `pairs` pairs in alternating order.

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
    return ratios
