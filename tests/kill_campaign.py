"""A campaign of SIGKILLs: `make kill-test N=100`. Prints kills and bytes that differ from work that was never killed.

Training by every method, games, data and the workflow are killed at random moments, two at a time, started again,
and in the end brought to their end. Ends with status 1 where a byte differs.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT, TINY
from test_resume import COMMAND

from blip.methods import METHODS

TIMES = {"run.json", "cost.csv"}
"""What a run's folder holds of times."""
GAMES = """\
name: quick
games: [Boxing, Freeway]
network: {channels: [2, 2, 2], hidden: 8}
ppo: {steps: 300, environments: 2, rollout: 10, epochs: 1, mini_batches: 2, restart_updates: 2}
evaluation: {episodes: 1, every_updates: 4, max_frames: 400}
methods: {blip: {f_prior: 1e-18, fisher_batch_size: 4, fisher_batches: 5}}
"""
SUITE = "{name: small, seeds: [0], experiments: [{config: tiny.yaml, methods: [blip, ewc]}]}\n"


@dataclass(frozen=True)
class Work:
    """What is killed: commands in a folder, of which the last is, and what it makes."""

    name: str
    commands: Callable[[Path], list[list[str]]]
    made: str
    """The folder of results, below the work's."""


def blip(*arguments: object) -> list[str]:
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


def training(method: str, config: str = "tiny.yaml", *more: str) -> Work:
    folders = ["--data", "data", "--out", "runs", "--checkpoints", "checkpoints"]
    command = blip("train", config, "--method", method, *folders, "--device", "cpu", *more)
    return Work(f"train {method} on {config}", lambda _: [command], "runs")


def workflow(folder: Path) -> list[list[str]]:
    if not (folder / "workflow").exists():
        for name in ("workflow", "config", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "profiles").symlink_to("workflow/profiles")
        (folder / "small.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "suite=small.yaml", "device=cpu"]
    return [[*command, "--unlock"], command]


WORKS = [
    *(training(method, "tiny.yaml", "--set", "training.epochs=25", "methods.mas.strength=0.01") for method in METHODS),
    training("blip", "quick.yaml"),
    Work("data", lambda _: [blip("data", "tiny.yaml", "--data", "data", "--seed", "0", "1", "2")], "data"),
    Work("workflow", workflow, "results"),
]


def start(work: Work, folder: Path) -> "subprocess.Popen[bytes]":
    """The work's last command, once those before it have ended."""
    folder.mkdir(exist_ok=True)
    for name, text in (("tiny.yaml", TINY), ("quick.yaml", GAMES)):
        (folder / name).write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (folder / "log").open("ab") as log:
        *before, last = work.commands(folder)
        for command in before:
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=environment, check=False)
        return subprocess.Popen(last, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def finished(work: Work, folder: Path) -> None:
    if start(work, folder).wait() != 0:
        raise SystemExit(f"{work.name}: {(folder / 'log').read_text(errors='replace')[-2000:]}")


def made(work: Work, folder: Path) -> dict[str, bytes]:
    """What the work made, but for what holds times or pictures of times."""
    below = folder / work.made
    files = {str(path.relative_to(below)): path for path in below.rglob("*") if path.is_file()}
    timed = ("logs/", "benchmarks/", "tables/", "figures/", "report", "index.html")
    kept = {n: p for n, p in files.items() if p.name not in TIMES and not any(f"/{t}" in f"/{n}" for t in timed)}
    return {name: path.read_bytes() for name, path in kept.items()}


def kill(work: Work, kills: int, folder: Path, seed: str) -> tuple[int, int]:
    """Kills that met the work alive, and bytes of its results that differ from those of work never killed."""
    whole, killed = folder / "whole", folder / "killed"
    folder.mkdir(parents=True)
    began = time.monotonic()
    finished(work, whole)
    duration = time.monotonic() - began
    moments, done = random.Random(seed), 0
    while done < kills:
        process = start(work, killed)
        try:
            status = process.wait(moments.uniform(0, 1.1 * duration))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            continue
        if status != 0:
            raise SystemExit(f"{work.name}: {(killed / 'log').read_text(errors='replace')[-2000:]}")
        shutil.rmtree(killed / work.made)  # it was done first: the same once more
    finished(work, killed)
    expected, found = made(work, whole), made(work, killed)
    wrong = {n: differing(expected.get(n, b""), found.get(n, b"")) for n in sorted({*expected, *found})}
    for name, count in wrong.items():
        if count:
            print(f"{work.name}: {name}: {count} bytes differ", flush=True)
    return done, sum(wrong.values())


def differing(a: bytes, b: bytes) -> int:
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))


def main(kills: int, seed: str = "0", only: str = "") -> int:
    """Spread so many kills over all works, or over those with `only` in their names."""
    works = [work for work in WORKS if only in work.name]
    shares = {work.name: kills // len(works) + (i < kills % len(works)) for i, work in enumerate(works)}
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(2) as pool:
        tasks = {
            work.name: pool.submit(kill, work, shares[work.name], Path(root, str(i)), f"{seed} {work.name}")
            for i, work in enumerate(works)
            if shares[work.name]
        }
        results = {}
        for name, task in tasks.items():
            results[name] = task.result()
            print(f"{name}: {results[name][0]} kills, {results[name][1]} differing bytes", flush=True)
    total, wrong = (sum(result[i] for result in results.values()) for i in (0, 1))
    print(f"all: {total} kills, {wrong} differing bytes")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in sys.argv[1:2]), *sys.argv[2:4]))
