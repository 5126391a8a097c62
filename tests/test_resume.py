"""Runs killed with SIGKILL at random moments end with the same bytes as runs that were not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blip.config import load_experiment
from blip.runs.train import run_folder

COMMAND = "import sys, blip.training.loop as loop; loop.SECONDS_BETWEEN_CHECKPOINTS = 0; "
COMMAND += "from blip.cli import main; sys.exit(main(sys.argv[1:]))"


def start(config: Path, method: str, folder: Path) -> "subprocess.Popen[bytes]":
    options = ["--data", config.parent / "data", "--out", folder, "--checkpoints", folder / "checkpoints"]
    more = ["--set", "training.epochs=25"]
    arguments = ["train", config, "--method", method, *options, *more]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_checkpoint(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until a new one is written, so that kills fall into training and not into imports, or the process ends."""
    before = written(folder)
    while process.poll() is None and written(folder) <= before:
        time.sleep(0.002)


def written(folder: Path) -> int:
    """When the folder's checkpoint was, in ns; 0 without one."""
    try:
        return max((path.stat().st_mtime_ns for path in folder.glob("checkpoints/*/checkpoint.pt")), default=0)
    except FileNotFoundError:  # removed meanwhile
        return 0


@pytest.mark.parametrize(
    ("method", "kills"),
    [("blip", 2), pytest.param("blip", 10, marks=pytest.mark.slow), pytest.param("lwf", 10, marks=pytest.mark.slow)],
)
def test_killed_runs_end_with_the_same_bytes(method: str, kills: int, tiny: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(tiny, method, whole)
    wait_for_checkpoint(process, whole)
    began = time.monotonic()
    assert process.wait() == 0, process.stderr.read()  # type: ignore[union-attr]
    duration = time.monotonic() - began

    moments = random.Random(kills)
    actual = 0
    while actual < kills:
        process = start(tiny, method, killed)
        wait_for_checkpoint(process, killed)
        time.sleep(moments.uniform(0, duration / 2))
        if process.poll() is not None:  # it finished first: the same run once more, from its beginning
            assert process.returncode == 0, process.stderr.read()  # type: ignore[union-attr]
            (run_folder(killed, "tiny", method, 0) / "run.json").unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        actual += 1
    process = start(tiny, method, killed)
    assert process.wait() == 0, process.stderr.read()  # type: ignore[union-attr]

    name = load_experiment(tiny).name
    files = [path.name for path in run_folder(whole, "tiny", method, 0).iterdir()]
    for file in set(files) - {"run.json", "cost.csv"}:
        expected = (run_folder(whole, name, method, 0) / file).read_bytes()
        assert (run_folder(killed, name, method, 0) / file).read_bytes() == expected, file
    assert not list(killed.glob("checkpoints/*")), "checkpoints are removed when the results are written"
