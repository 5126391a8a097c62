"""A training step of the loop against a bare PyTorch loop on tensors that are normalised already: target ≤ 1.05 ×.

AlexNet-like network, 32×32 images, mul 1, batch 32. The loop's step picks the batch out of uint8 images, normalises it,
and calls the method's hooks (`sgd` has none; `blip` clamps).
"""

import tempfile
from pathlib import Path

import timing
import torch
import torch.nn.functional as F
from overhead import RandomSequence

from blip.checkpoint import Checkpoint
from blip.config import load_experiment
from blip.networks import build_network
from blip.training import Trainer

PAIRS, STEPS = 31, 4
CONFIG = Path(__file__).parents[1] / "config" / "experiments" / "cifar100.yaml"


def step_ratio(method: str, device: torch.device, cuda_graphs: bool = False) -> tuple[float, float, float]:
    """Time of `STEPS` of the loop's training steps / of as many bare ones."""
    experiment = load_experiment(CONFIG)
    sequence = RandomSequence(shape=(3, 32, 32), tasks=10, classes=10, train=STEPS * experiment.training.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder))
        trainer = Trainer(experiment, method, 0, sequence, checkpoint, device, cuda_graphs=cuda_graphs)  # type: ignore[arg-type]
    task = sequence.task(0)
    optimizer, _ = trainer._optimizer(None)
    step = trainer._step(optimizer, task.train)

    x, labels = task.train.batch(torch.arange(len(task.train)))
    network = build_network(experiment.network, sequence.image_shape, sequence.class_counts)
    bare_optimizer = torch.optim.SGD(network.parameters(), lr=experiment.training.lr)

    def bare() -> float:
        network.train()
        total = torch.zeros(())
        for inputs, targets in zip(x.split(32), labels.split(32), strict=True):
            loss = F.cross_entropy(network(inputs, 0), targets)
            bare_optimizer.zero_grad()
            loss.backward()
            bare_optimizer.step()
            total += loss.detach() * len(targets)
        return float(total)

    return timing.paired_ratio(lambda: trainer._train_epoch(step, task.train), bare, PAIRS, 1)


if __name__ == "__main__":
    timing.main()
    for method in ("sgd", "blip"):
        ratio = step_ratio(method, torch.device("cpu"))
        timing.report(f"{method}: training step / bare PyTorch", ratio, 1.05, PAIRS)
