"""Everything that is checked on a GPU, in eight minutes: `python benchmarks/gpu_check FOLDER`.

The steps come in the order of their importance. Each runs in a process of its own, which is ended when its time is
over, so that none takes another down; after each row that it has given, report.json and report.md in FOLDER are whole.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import report
import torch
from common import ROOT, ROWS, Row, Setting, emit, row, stand_ins
from hours import hours

HERE = Path(__file__).parent


class Step(NamedTuple):
    function: str
    """module.name, imported in the step's own process."""
    seconds: float
    """At most."""
    about: str


STEPS = {
    "machine": Step("checks.machine", 30, "what is there"),
    "tests": Step("checks.tests", 150, "tests marked gpu"),
    "speed": Step("images.speed", 75, "training steps on images"),
    "games": Step("games.games", 75, "PPO"),
    "runs": Step("runs.runs", 80, "mnist5 with the published settings, and a task of cifar"),
    "waits": Step("images.waits", 30, "what steps wait for"),
    "fisher": Step("images.fisher", 30, "Fisher information"),
    "sharing": Step("images.sharing", 60, "several runs on the device"),
}


def main() -> int:
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu_check: no CUDA device: nothing is checked (--device cpu --quick tries the check itself)",
            file=sys.stderr,
        )
        return 2
    if options.step:
        return run_step(options)
    deadline = time.monotonic() + 60 * options.minutes
    chosen = options.only or list(STEPS)
    steps = [_entry(name, STEPS[name].about) for name in chosen]
    steps.append(_entry("hours", "of the paper's suite on this GPU"))
    options.folder.mkdir(parents=True, exist_ok=True)
    for entry in steps[:-1]:
        supervise(entry, options, deadline, lambda: report.write(options.folder, steps))
    steps[-1].update(state="done", rows=list(hours(steps)))
    report.write(options.folder, steps)
    print(options.folder / "report.md")
    return 0 if all(entry["state"] == "done" for entry in steps) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("folder", type=Path, help="where report.json and report.md go")
    parser.add_argument("--raw", type=Path, default=ROOT / "data" / "raw", help="raw data (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8, help="at most (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="everything tiny, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _entry(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "about": about, "state": "waiting", "seconds": 0.0, "rows": [], "message": ""}


def run_step(options: argparse.Namespace) -> int:
    """In a process of its own: hand on each row as soon as it is there."""
    from blip.devices import pick_device, tensor_float_32

    module, _, name = STEPS[options.step].function.rpartition(".")
    device = pick_device(options.device)
    raw, end = options.raw.resolve(), time.monotonic() + options.seconds
    function: Callable[[Setting], Iterator[Row]] = getattr(import_module(module), name)
    with stand_ins(device), tensor_float_32(device, False):
        for found in function(Setting(device, options.quick, raw, end)):
            emit(found)
    return 0


def supervise(entry: dict[str, Any], options: argparse.Namespace, deadline: float, write: Callable[[], None]) -> None:
    """Run a step, and write the report whenever it has given something."""
    began = time.monotonic()
    slack = 5 if options.device == "cpu" else 1
    seconds = min(slack * STEPS[entry["name"]].seconds, deadline - began)
    if seconds < 5:
        entry.update(state="left out", message=f"the {options.minutes:g} minutes were over")
        write()
        return
    command = [sys.executable, str(HERE), str(options.folder), "--raw", str(options.raw), "--device", options.device]
    command += ["--step", entry["name"], "--seconds", str(seconds), *(["--quick"] if options.quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder) / "rows", Path(folder) / "log"
        rows.touch()
        with log.open("w") as file:
            variables = os.environ | {ROWS: str(rows)}
            process = subprocess.Popen(command, stdout=file, stderr=file, env=variables, start_new_session=True)
        entry["state"] = "running"
        late = _follow(process, rows, entry, began + seconds, write)
        if late:
            entry.update(state=f"ended after {seconds:.0f} s", message=_tail(log))
        elif process.returncode:
            entry.update(state=f"failed with status {process.returncode}", message=_tail(log))
        else:
            entry["state"] = "done"
    print(f"{entry['name']}: {entry['state']}, {entry['seconds']:.0f} s, {len(entry['rows'])} rows", flush=True)
    write()


def _follow(
    process: "subprocess.Popen[bytes]", rows: Path, entry: dict[str, Any], end: float, write: Callable[[], None]
) -> bool:
    """Take up the rows of a step until it has ended; True where it had to be ended."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
        lines = rows.read_text().splitlines()
        if len(lines) > len(entry["rows"]):
            _take(entry, lines, began)
            write()
    late = process.poll() is None
    if late:
        os.killpg(process.pid, signal.SIGKILL)  # with what it started
    process.wait()
    _take(entry, rows.read_text().splitlines(), began)
    return late


def _take(entry: dict[str, Any], lines: list[str], began: float) -> None:
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            rows.append(row("a row that was cut off", "?"))
    entry.update(rows=rows, seconds=time.monotonic() - began)


def _tail(log: Path) -> str:
    """The last lines, 4,000 characters at most and without this machine's folder: a report is small, and kept."""
    return "\n".join(log.read_text(errors="replace").replace(f"{ROOT}/", "").splitlines()[-25:])[-4000:]


if __name__ == "__main__":
    sys.exit(main())
