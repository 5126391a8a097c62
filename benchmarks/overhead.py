"""Share of a whole mnist5 run that is not forward, backward, update and clamp: target ≤ 12 %.

The run (a few epochs a task, evaluation, Fisher, checkpoints, everything) against a bare loop of the same forward and
backward passes, steps and clamps on tensors that are normalised already. Uses random images of MNIST's size and number.
"""

import tempfile
import time
from pathlib import Path

import timing
import torch
import torch.nn.functional as F

from blip.config import load_experiment
from blip.data.sequences import Examples, Task
from blip.networks import build_network
from blip.progress import Progress
from blip.training.checkpoint import Checkpoint

TASKS, TRAIN, TEST, EPOCHS, PAIRS = 5, 12_000, 2_000, 3, 3
EVALUATION = 334  # images at a time, as the run has it
CONFIG = Path(__file__).parents[1] / "config" / "experiments" / "mnist5.yaml"


def examples(n: int, shape: tuple[int, ...], classes: int) -> Examples:
    """Random images, normalised to about mean 0 and deviation 1."""
    images, labels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8), torch.randint(0, classes, (n,))
    return Examples(images, labels, torch.full((shape[0], 1, 1), 1 / 73.9), torch.full((shape[0], 1, 1), -1.73))


class RandomSequence:
    """Stands in for a task sequence, by default MNIST's: the same sizes, random content."""

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 28, 28),
        tasks: int = TASKS,
        classes: int = 2,
        train: int = TRAIN,
        test: int = TEST,
    ) -> None:
        self.image_shape = shape
        self.outputs = [classes] * tasks
        self.names = [f"task {t}" for t in range(tasks)]
        self.train, self._test = examples(train, shape, classes), examples(test, shape, classes)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "RandomSequence":
        """Itself, on a device."""
        for part in ("train", "_test"):
            held = getattr(self, part)
            moved = (t.to(device) for t in (held.images, held.labels, held.scale, held.shift))
            setattr(self, part, Examples(*moved))
        return self

    def task(self, t: int) -> Task:
        return Task(self.names[t], ("0", "1"), self.train, self.train)

    def test(self, t: int) -> Examples:
        return self._test


def whole_run(method: str, sequence: RandomSequence) -> None:
    experiment = load_experiment(
        CONFIG,
        {
            "training.epochs": EPOCHS,
            # One Fisher estimate follows up to 200 epochs; so few epochs get their share of one.
            "methods.blip.fisher_batches": max(1, round(80 * EPOCHS / 200)),
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder))
        trainer = experiment.trainer(method, 0, sequence, checkpoint, torch.device("cpu"))  # type: ignore[arg-type]
        Progress.say = lambda *_: None  # type: ignore[method-assign]
        trainer.run("benchmark")


def bare_loop(method: str, x: torch.Tensor, labels: torch.Tensor) -> None:
    """Without a Fisher information: after the first task every parameter is clamped to a range of its own."""
    experiment = load_experiment(CONFIG)
    network = build_network(experiment.network, (1, 28, 28), [2] * TASKS)
    for t in range(TASKS):
        optimizer = torch.optim.SGD(network.parameters(), lr=experiment.training.lr)
        ranges = [(p, -torch.ones_like(p), torch.ones_like(p)) for p in network.features.parameters()] if t else []
        for _ in range(EPOCHS):
            size = experiment.training.batch_size
            for inputs, targets in zip(x.split(size), labels.split(size), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs, t), targets).backward()
                optimizer.step()
                if method == "blip":
                    with torch.no_grad():
                        for parameter, low, high in ranges:
                            parameter.clamp_(low, high)
            with torch.no_grad():
                for inputs in x.split(EVALUATION):
                    network(inputs, t)
        with torch.no_grad():
            for u in range(t + 1):
                for inputs in x[:TEST].split(EVALUATION):
                    network(inputs, u)


if __name__ == "__main__":
    timing.main()
    sequence = RandomSequence()
    x, labels = next(sequence.train.batches(TRAIN))
    for method in ("sgd", "blip"):
        shares = []
        for _ in range(PAIRS):
            start = time.process_time()
            whole_run(method, sequence)
            middle = time.process_time()
            bare_loop(method, x, labels)
            shares.append(1 - (time.process_time() - middle) / (middle - start))
        shares.sort()
        ratio = shares[len(shares) // 2], shares[0], shares[-1]
        what = f"mnist5, `{method}`: share of a whole run outside forward, backward, update, clamp"
        timing.report(what, ratio, 0.12, PAIRS)
