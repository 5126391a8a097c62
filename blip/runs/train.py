"""A run folder: train, and write what was measured, how, and on what."""

import csv
import io
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from blip.config import Experiment, GameExperiment, fingerprint
from blip.data import load_sequence, prepare_experiment
from blip.devices import pick_device
from blip.errors import BlipError
from blip.files import atomic_write, make_folder
from blip.images.image_trainer import Trainer
from blip.record import GAME_TABLES, TABLES
from blip.runs.kept import KeptRun
from blip.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from blip.games.game_trainer import GameTrainer

PACKAGES = ("torch", "numpy", "safetensors")
"""Whose versions a run records; those of games are added to them."""


RUN_FILES = ("run.json", "weights.safetensors", *(f"{table}.csv" for table in TABLES))
"""What a finished run folder holds."""
GAME_FILES = (*RUN_FILES, *(f"{table}.csv" for table in GAME_TABLES))
"""And that of a run on games."""


def run_folder(out: Path, experiment: str, method: str, seed: int) -> Path:
    """Where the results of a run lie below `out`."""
    return out / experiment / method / f"seed{seed}"


def train_run(
    experiment: Experiment | GameExperiment,
    method: str,
    seed: int,
    *,
    raw: Path,
    data: Path,
    out: Path,
    checkpoints: Path,
    device: str = "auto",
    cuda_graphs: bool = True,
    keep: bool = False,
) -> Path:
    """Train one run and write its folder below `out`; a finished one of the same configuration is left alone.

    Goes on from the run's checkpoint where a process was stopped before, and removes it at the end. `accuracy.csv` is
    written last: a folder that has it is complete. With `keep`, a copy of the finished folder stays beside the
    checkpoints, and a folder that was deleted is written from it. Raises BlipError for bad input, a full disk or a
    diverging loss.
    """
    folder = run_folder(out, experiment.name, method, seed)
    config = experiment.run_config(method, seed)
    target = pick_device(device)
    if isinstance(experiment, GameExperiment):
        job = _games(experiment, method, seed, target, cuda_graphs)
    else:
        job = _classification(experiment, method, seed, raw, data, target, cuda_graphs)
    key = fingerprint([config, job.checksum, metadata.version("blip-continual")])
    checkpoint = Checkpoint(checkpoints / key)
    if (folder / "accuracy.csv").exists() and _recorded_key(folder) == key:
        print(f"{folder}: complete already", file=sys.stderr)
        checkpoint.remove()  # still there where the run was killed right after its last file
        return folder
    kept = KeptRun(checkpoints / "finished", key) if keep else None
    if kept and kept.restore(folder):
        print(f"{folder}: complete already, brought back from its copy", file=sys.stderr)
        return folder
    make_folder(folder)  # where it cannot be made, say so before training
    started = datetime.now(UTC)
    with checkpoint.held():
        trainer = job.trainer(checkpoint)
        trainer.run(f"{experiment.name} {method} seed {seed}")
        about = {
            "experiment": experiment.name,
            "method": method,
            "seed": seed,
            "tasks": job.tasks,
            "stand_in": experiment.stand_in,
            "max_bits": config["method"].get("max_bits"),
            "config": config,
            "key": key,
            "provenance": provenance(target, started, job.packages),
        }
        _write(folder, trainer, about, target)
        if kept:
            kept.store(folder)
        checkpoint.remove()
    return folder


@dataclass(frozen=True)
class _Job:
    """What kinds of experiments differ in."""

    checksum: str
    """Of the data."""
    tasks: list[dict[str, Any]]
    trainer: "Callable[[Checkpoint], Trainer | GameTrainer]"
    packages: tuple[str, ...] = PACKAGES


def _classification(
    experiment: Experiment, method: str, seed: int, raw: Path, data: Path, device: torch.device, cuda_graphs: bool
) -> _Job:
    sequence = load_sequence(prepare_experiment(experiment.name, experiment.data, seed, raw, data), data, device)
    if sequence.stand_ins and not experiment.stand_in:
        raise BlipError(
            f"{data / sequence.stand_ins[0]}: made of generated images: delete it and prepare the real data, or say "
            f"stand_in: true in the experiment {experiment.name}"
        )
    return _Job(
        sequence.checksum,
        [{"name": n, "classes": c} for n, c in zip(sequence.names, sequence.class_counts, strict=True)],
        lambda checkpoint: Trainer(experiment, method, seed, sequence, checkpoint, device, cuda_graphs=cuda_graphs),
    )


def _games(experiment: GameExperiment, method: str, seed: int, device: torch.device, cuda_graphs: bool) -> _Job:
    from blip.games.atari import action_count  # here, since classification does without these packages
    from blip.games.game_trainer import GameTrainer

    return _Job(
        "",
        [{"name": game, "classes": action_count(game)} for game in experiment.games],
        lambda checkpoint: GameTrainer(experiment, method, seed, checkpoint, device, cuda_graphs=cuda_graphs),
        (*PACKAGES, "ale-py", "gymnasium", "stable-baselines3"),
    )


def provenance(device: torch.device, started: datetime, packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """What made these numbers: code, libraries, hardware, command; no host or user name, no absolute path."""
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv]
    return {
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{p: metadata.version(p) for p in packages},
        },
        "cpu": _cpu_model(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "command": " ".join(arguments),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """The commit of the source tree, with `+` where it was changed; the package's version where there is none."""
    here = Path(__file__).parents[1]
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(here)],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {metadata.version('blip-continual')}"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _recorded_key(folder: Path) -> str | None:
    try:
        key: str | None = json.loads((folder / "run.json").read_text()).get("key")
        return key
    except (OSError, ValueError):
        return None


def _write(folder: Path, trainer: "Trainer | GameTrainer", about: dict[str, Any], device: torch.device) -> None:
    """The run's weights, tables and description, `accuracy.csv` last."""
    (folder / "accuracy.csv").unlink(missing_ok=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    trainer.tables["cost"].append({"task": -1, "phase": "peak_memory_mb", "seconds": round(peak, 1)})
    weights = {name: value.cpu().contiguous() for name, value in trainer.network.state_dict().items()}
    atomic_write(folder / "weights.safetensors", safetensors.torch.save(weights))
    atomic_write(folder / "run.json", json.dumps(about, indent=1) + "\n")
    for name, rows in sorted(trainer.tables.items(), key=lambda table: table[0] == "accuracy"):
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, (TABLES | GAME_TABLES)[name], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(folder / f"{name}.csv", buffer.getvalue())
