"""What 100 tasks cost: a training step at task 100 against one at task 2 (target ≤ 1.1, LwF ≤ 1.5).

And of BLIP its checkpoint, and the Fisher information and consolidation after a task, at tasks 1, 10 and 100.

LwF asks all earlier heads, so its products grow; nobody else's do. The MLP of mnist5, two classes a task, batch 64.
"""

import tempfile
from pathlib import Path

import timing
import torch
from overhead import CONFIG, RandomSequence

from blip.config import load_experiment
from blip.images.image_trainer import ImageTrainer
from blip.methods import METHODS
from blip.training.checkpoint import Checkpoint, to_bytes
from blip.training.descent import GradientDescent

PAIRS, STEPS, BATCH = 15, 20, 64


def at_task(method: str, task: int, tasks: int = 100, train: int = STEPS * BATCH) -> ImageTrainer:
    """A trainer that is about to learn `task` (from 1 on), with what the method remembers of the tasks before."""
    experiment = load_experiment(CONFIG)
    sequence = RandomSequence(tasks=tasks, train=train, test=1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder))
        trainer = experiment.trainer(method, 0, sequence, checkpoint, torch.device("cpu"))  # type: ignore[arg-type]
    # The tasks between would leave a state of the same size.
    for t in sorted({0, task - 2}) if task > 1 else ():
        trainer.method.before_task(t)
        trainer.method.after_task(t, sequence.train)
    trainer.task = task - 1
    trainer.method.before_task(trainer.task)
    return trainer


def steps(method: str, task: int) -> timing.Work:
    trainer = at_task(method, task)
    train = trainer.sequence.task(trainer.task).train
    step = trainer._step(GradientDescent(trainer.method.trained_parameters(), 0.01), train)
    return lambda: trainer._train_epoch(step, train)


def after(task: int) -> timing.Work:
    """What BLIP does after a task: Fisher information and consolidation."""
    trainer = at_task("blip", task)
    train = trainer.sequence.task(trainer.task).train

    def work() -> None:
        trainer.method.before_task(trainer.task)
        trainer.method.blip.clamp_()  # type: ignore[attr-defined]
        trainer.method.after_task(trainer.task, train)

    return work


def checkpoint_bytes(task: int) -> int:
    """Network and method before `task`, as a checkpoint holds them."""
    trainer = at_task("blip", task)
    return len(to_bytes({"network": trainer.network.state_dict(), "method": trainer.method.state_dict()}))


def scale() -> None:
    """Rows of what BLIP takes at tasks 1, 10 and 100 against task 2: in the first no parameter has its own range."""
    at_two = checkpoint_bytes(2)
    for task in (1, 10, 100):
        ratio = timing.paired_ratio(steps("blip", task), steps("blip", 2), PAIRS, 1)
        timing.report(f"`blip`: step at task {task} / at task 2", ratio, 1.1, PAIRS)
        ratio = timing.paired_ratio(after(task), after(2), 5, 1)
        timing.report(f"`blip`: Fisher information and consolidation after task {task} / after task 2", ratio, 1.1, 5)
        size = checkpoint_bytes(task)
        measured = f"{size / 2**20:.2f} MiB, {size / at_two:.3f} of task 2's"
        timing.row(f"`blip`: checkpoint at task {task}", measured, size <= 1.01 * at_two, 1.01)


if __name__ == "__main__":
    timing.main()
    scale()
    for method in METHODS:
        ratio = timing.paired_ratio(steps(method, 100), steps(method, 2), PAIRS, 1)
        timing.report(f"{method}: step at task 100 / at task 2", ratio, 1.5 if method == "lwf" else 1.1, PAIRS)
