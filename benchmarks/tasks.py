"""What 100 tasks cost: a training step at task 100 against one at task 2 (target ≤ 1.1, LwF ≤ 1.5), BLIP's state.

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


def at_task(method: str, task: int, tasks: int = 100) -> ImageTrainer:
    """A trainer that is about to learn `task` (from 1 on), with what the method remembers of the tasks before."""
    experiment = load_experiment(CONFIG)
    sequence = RandomSequence(tasks=tasks, train=STEPS * BATCH, test=1)
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


def state_bytes(task: int) -> int:
    """What BLIP adds to a checkpoint before `task`."""
    return len(to_bytes(at_task("blip", task).method.state_dict()))


if __name__ == "__main__":
    timing.main()
    for task in (10, 100):
        ratio = state_bytes(task) / state_bytes(2)
        timing.report(f"`blip`: its state in a checkpoint at task {task} / at task 2", (ratio, ratio, ratio), 1.01, 1)
    for method in METHODS:
        ratio = timing.paired_ratio(steps(method, 100), steps(method, 2), PAIRS, 1)
        timing.report(f"{method}: step at task 100 / at task 2", ratio, 1.5 if method == "lwf" else 1.1, PAIRS)
