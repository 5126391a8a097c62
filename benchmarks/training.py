"""A training step of the loop against a bare PyTorch loop on tensors that are normalised already: target ≤ 1.05 ×.

AlexNet-like network, 32×32 images, mul 1, batch 32. The loop's step picks the batch out of uint8 images, normalises it,
and calls the method's hooks (`sgd` has none; `blip` clamps).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import timing
import torch
import torch.nn.functional as F
from overhead import RandomSequence

from blip.config import load_experiment
from blip.networks import build_network
from blip.training.checkpoint import Checkpoint
from blip.training.descent import GradientDescent

PAIRS, STEPS = 31, 4
CONFIG = Path(__file__).parents[1] / "config" / "experiments" / "cifar100.yaml"


def loop_and_bare(
    method: str, device: torch.device, *, cuda_graphs: bool = False, steps: int = STEPS
) -> tuple[Callable[[], float], Callable[[], float]]:
    """`steps` of the loop's training steps, and as many bare ones."""
    experiment = load_experiment(CONFIG)
    size = experiment.training.batch_size
    sequence = RandomSequence(shape=(3, 32, 32), tasks=10, classes=10, train=steps * size).to(device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder))
        trainer = experiment.trainer(method, 0, sequence, checkpoint, device, cuda_graphs)  # type: ignore[arg-type]
    task = sequence.task(0)
    step = trainer._step(GradientDescent(trainer.method.trained_parameters(), experiment.training.lr), task.train)

    x, labels = task.train.batch(torch.arange(len(task.train), device=device))
    network = build_network(experiment.network, sequence.image_shape, sequence.outputs).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=experiment.training.lr)

    def bare() -> float:
        network.train()
        total = torch.zeros((), device=device)
        for inputs, targets in zip(x.split(size), labels.split(size), strict=True):
            loss = F.cross_entropy(network(inputs, 0), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(targets)
        return float(total)

    return lambda: trainer._train_epoch(step, task.train), bare


if __name__ == "__main__":
    timing.main()
    for method in ("sgd", "blip"):
        ratio = timing.paired_ratio(*loop_and_bare(method, torch.device("cpu")), PAIRS, 1)
        timing.report(f"{method}: training step / bare PyTorch", ratio, 1.05, PAIRS)
