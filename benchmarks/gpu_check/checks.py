"""What is there, and whether it is right: the tests that need a GPU."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from common import ROOT, Row, Setting, emit, row

from blip.doctor import report


def machine(setting: Setting) -> Iterator[Row]:
    """As `blip doctor` says it."""
    for line in report().splitlines():
        name, _, value = line.partition("  ")
        yield row(name, value.strip())
    commit = ROOT / "commit.txt"
    yield row("commit of the bundle", commit.read_text().strip() if commit.exists() else "not a bundle")


class _Outcomes:
    """Tells how each test ended, as soon as it has."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

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

    if setting.device.type != "cuda":
        os.environ["BLIP_GPU_STAND_IN"] = "1"
    few = "consolidation or quantisation or (eager and mlp and sgd and not frozen)" if setting.quick else ""
    arguments = [str(ROOT / "tests" / "test_gpu.py"), "-m", "gpu", "-q", "-p", "no:cacheprovider", "-k", few]
    outcomes = _Outcomes()
    pytest.main(arguments, plugins=[outcomes])
    yield row("tests passed", outcomes.counts["passed"])
    yield row("tests failed", outcomes.counts["failed"], target="≤ 0")
