"""Whole runs: `mnist5` with the published settings beside the recorded ones, and a task of the size of `cifar`."""

import csv
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import EXPERIMENTS, ROOT, Row, Setting, row
from images import SMALL_ALEXNET, SMALL_MLP
from overhead import RandomSequence

from blip.config import load_experiment
from blip.data import is_present, write_stand_ins
from blip.runs.train import Training, train_run
from blip.training.checkpoint import Checkpoint


def final_accuracy(path: Path) -> float:
    """Mean over tasks after the last one, from a run's accuracy.csv."""
    rows = list(csv.DictReader(path.open()))
    last = max(int(r["task_learned"]) for r in rows)
    return statistics.fmean(float(r["accuracy"]) for r in rows if int(r["task_learned"]) == last)


def mnist5(setting: Setting) -> Iterator[Row]:
    """Seed 0 of three methods; `recorded` is what the repository's runs on a CPU gave."""
    with tempfile.TemporaryDirectory() as name:
        folder, changes, raw = Path(name), {}, setting.raw
        if setting.quick:
            raw = folder / "raw"
            write_stand_ins(raw)
            changes = {"stand_in": True, "training.epochs": 1, "methods.blip.fisher_batches": 2} | SMALL_MLP
        experiment: Any = load_experiment(EXPERIMENTS / "mnist5.yaml", changes)
        if not all(is_present(source, raw) for source in experiment.sources):
            yield row("mnist5: left out", f"MNIST is not in {raw.name}")
            return
        for method in ("blip", "sgd", "ewc"):
            start = time.perf_counter()
            how = Training(raw, folder / "data", folder / "checkpoints", str(setting.device))
            run = train_run(experiment, method, 0, folder / "runs", how)
            seconds = time.perf_counter() - start
            epochs = len((run / "history.csv").read_text().splitlines()) - 1
            recorded = sorted((ROOT / "results/recorded/mnist5/runs/mnist5" / method).glob("seed*/accuracy.csv"))
            beside = ", ".join(f"{final_accuracy(path):.4f}" for path in recorded) or "none"
            yield row(f"mnist5, {method}: whole run, {epochs} epochs", seconds, "s")
            yield row(
                f"mnist5, {method}: mean accuracy", final_accuracy(run / "accuracy.csv"), note=f"recorded: {beside}"
            )
            if setting.left() < 1.2 * seconds:
                return


def cifar_task(setting: Setting) -> Iterator[Row]:
    """One task of the size of those of `cifar` (9,000 and 1,000 random images), ten epochs of the 200 at most."""
    epochs, size = (1, 64) if setting.quick else (10, 9000)
    changes: dict[str, Any] = {"training.epochs": epochs, "training.lr_patience": 1000}
    if setting.quick:
        changes |= SMALL_ALEXNET | {"methods.blip.fisher_batches": 2}
    experiment: Any = load_experiment(EXPERIMENTS / "cifar.yaml", changes)
    sequence: Any = RandomSequence(shape=(3, 32, 32), tasks=1, classes=2, train=size, test=max(64, size // 9))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder))
        trainer = experiment.trainer("blip", 0, sequence.to(setting.device), checkpoint, setting.device)
        seconds = setting.seconds(lambda: trainer.run("cifar, one task"))
    yield row(f"cifar, one task of random images, {epochs} epochs, Fisher and test", seconds, "s")
    for cost in trainer.tables["cost"]:
        yield row(f"cifar, one task: {cost['phase']}", cost["seconds"], "s")


def runs(setting: Setting) -> Iterator[Row]:
    yield from mnist5(setting)
    yield from cifar_task(setting)
