"""A training epoch of mnist5 beside Avalanche's, where that is installed: fine-tuning, and EWC at tasks 1 and 5.

The same network (784-1200 and a head for each task), batch 64, plain SGD, tensors in memory that are normalised already
(ours picks and normalises uint8 images), no evaluation. Avalanche's EWC keeps a penalty for each earlier task
("separate", its default). It is no dependency of the project: install it where nothing else depends on the versions
that it brings, with what this project needs, and run there

    PYTHONPATH=. python benchmarks/peer.py
"""

import statistics
import time
from importlib.util import find_spec
from typing import Any

import timing
import torch
from overhead import RandomSequence
from tasks import at_task
from torch import nn

from blip.training.descent import GradientDescent
from blip.training.products import DEFAULT, computed_by

TASKS, TRAIN, BATCH, REPEATS = 5, 12_000, 64, 3
TARGETS: dict[tuple[str, int], float | None] = {
    ("sgd", 0): 3.0,
    ("sgd", TASKS - 1): 3.0,
    ("ewc", 0): None,
    ("ewc", TASKS - 1): 6.0,
}


def ours(method: str, task: int) -> float:
    """CPU seconds of an epoch of `task`, counted from 0."""
    trainer = at_task(method, task + 1, tasks=TASKS, train=TRAIN)
    train = trainer.sequence.task(task).train
    step = trainer._step(GradientDescent(trainer.method.trained_parameters(), 0.01), train)
    trainer._train_epoch(step, train)
    start = time.process_time()
    trainer._train_epoch(step, train)
    return time.process_time() - start


def theirs(method: str) -> list[float]:
    """CPU seconds of an epoch of each task, Fisher information and growing heads left out."""
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.core import SupervisedPlugin
    from avalanche.models import MultiHeadClassifier, MultiTaskModule
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import EWC, Naive

    class Network(MultiTaskModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Flatten(), nn.Linear(784, 1200), nn.ReLU())
            self.classifier = MultiHeadClassifier(1200)

        def forward(self, x: torch.Tensor, task_labels: torch.Tensor) -> Any:
            return self.classifier(self.features(x), task_labels)

    class Clock(SupervisedPlugin):  # type: ignore[misc]
        def before_training_epoch(self, *_: Any, **__: Any) -> None:
            self.start = time.process_time()

        def after_training_epoch(self, *_: Any, **__: Any) -> None:
            seconds.append(time.process_time() - self.start)

    seconds: list[float] = []
    x, labels = next(RandomSequence(train=TRAIN).train.batches(TRAIN))
    benchmark = tensors_benchmark([(x, labels)] * TASKS, [(x[:1], labels[:1])] * TASKS, task_labels=list(range(TASKS)))
    network = Network()
    arguments: dict[str, Any] = {
        "model": network,
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.01),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": BATCH,
        "plugins": [Clock()],
        "evaluator": EvaluationPlugin(),
    }
    strategy = EWC(ewc_lambda=1.0, mode="separate", **arguments) if method == "ewc" else Naive(**arguments)
    with computed_by(DEFAULT):  # as it is without us
        for experience in benchmark.train_stream:
            strategy.train(experience)
    return seconds


def main() -> None:
    if find_spec("avalanche") is None:
        print("Avalanche is not installed here: nothing to compare with")
        return
    timing.main()
    for method in ("sgd", "ewc"):
        ratios: dict[int, list[float]] = {0: [], TASKS - 1: []}
        for _ in range(REPEATS):
            seconds = theirs(method)
            for task, values in ratios.items():
                values.append(seconds[task] / ours(method, task))
        for task, values in ratios.items():
            what = f"mnist5, `{method}`, task {task + 1}: Avalanche's epoch / ours"
            spread = statistics.median(values), min(values), max(values)
            timing.report(what, spread, TARGETS[method, task], REPEATS, at_least=True)


if __name__ == "__main__":
    main()
