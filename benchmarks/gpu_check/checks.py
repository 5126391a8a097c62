"""What is there, and whether it is right: the tests that need a GPU."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from common import ROOT, Row, Setting, emit, row

from blip.doctor import report


def machine(setting: Setting) -> Iterator[Row]:
    """As `blip doctor` says it."""
    for line in report(setting.raw).replace(str(setting.raw), setting.raw.name).splitlines():
        name, _, value = line.partition("  ")
        yield row(name, value.strip())
    commit = ROOT / "commit.txt"
    yield row("commit of the bundle", commit.read_text().strip() if commit.exists() else "not a bundle")


FIRST = (
    "consolidation|quantisation|fisher|labels",
    "graphs_and_eager_training.*float32",
    "whole_run",
    "updates_of_games.*float32",
    "stopped",
    "never_wait",
    "memory|pile",
)
"""In what order tests come, should there be no time for all of them; the rest is last."""


def place(name: str) -> int:
    """Of a test in that order."""
    return next((i for i, pattern in enumerate(FIRST) if re.search(pattern, name)), len(FIRST))


class _Outcomes:
    """Sorts the tests by importance, and tells how each ended, as soon as it has."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: place(item.name))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] += 1
        crash = getattr(report.longrepr, "reprcrash", None)
        why = str(crash.message if crash else report.longrepr)[:500] if report.failed else ""
        emit(row(report.nodeid.rpartition("::")[2], report.outcome, seconds=round(report.duration, 1), note=why))


def tests(setting: Setting) -> Iterator[Row]:
    """The tests marked gpu."""
    import pytest  # here, since an image that only trains has none

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whatever this machine has

    if setting.device.type != "cuda":
        os.environ["BLIP_GPU_STAND_IN"] = "1"
    few = "consolidation or quantisation or (eager and mlp and sgd and not frozen)" if setting.quick else ""
    arguments = [str(ROOT / "tests" / "test_gpu.py"), "-m", "gpu", "-q", "-p", "no:cacheprovider", "-k", few]
    outcomes = _Outcomes()
    pytest.main(arguments, plugins=[outcomes])
    yield row("tests passed", outcomes.counts["passed"])
    yield row("tests failed", outcomes.counts["failed"], target="≤ 0")
