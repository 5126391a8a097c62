"""Numbers computed with the published implementation come out: bits equal, floats to float32 rounding.

They are in golden/golden.npz, or in the file that the environment variable BLIP_GOLDEN names. `make golden` lets the
published code compute new ones (make_golden.py), and tests with them.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import golden_numbers
import pytest
import torch
import torch.nn.functional as F
from golden_numbers import close, layer_of
from torch import Tensor, nn

from blip import BLIP, diagonal_fisher
from blip.data import Examples, Task
from blip.images.image_trainer import ACCURACY, HISTORY, ImageTrainer, TrainingConfig
from blip.methods import METHODS
from blip.networks import MultiHeadNetwork
from blip.record import COST, MEMORY
from blip.training.checkpoint import Checkpoint
from blip.training.loop import Setup

GOLDEN = golden_numbers.load("BLIP_GOLDEN", "golden.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN})


def numbers(case: str, name: str) -> Tensor:
    return GOLDEN[f"{case}/{name}"]


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/initial_weight" in GOLDEN])
def test_consolidation(case: str) -> None:
    layer = layer_of(numbers(case, "initial_weight").shape)
    n = layer.weight[0].numel()
    prior, bound = float(numbers(case, "prior")), float(numbers(case, "bound"))
    blip = BLIP(layer, prior / n, max_bits=int(numbers(case, "max_bits")), weight_range=bound * n**0.5)
    kinds = [name for name, _ in layer.named_parameters()]
    tasks = sum(key.startswith(f"{case}/t") and key.endswith("proposed_weight") for key in GOLDEN)
    assert tasks > 0
    for t in range(tasks):
        with torch.no_grad():
            for kind in kinds:
                getattr(layer, kind).copy_(numbers(case, f"t{t}_proposed_{kind}"))
        blip.clamp_()
        for kind in kinds:
            close(getattr(layer, kind), numbers(case, f"t{t}_clipped_{kind}"))
        blip.consolidate({kind: numbers(case, f"t{t}_fisher_{kind}") for kind in kinds})
        for kind in kinds:
            assert torch.equal(blip.bits[kind].long(), numbers(case, f"t{t}_bits_{kind}"))
            close(getattr(layer, kind), numbers(case, f"t{t}_quantised_{kind}"))
            running = numbers(case, f"t{t}_running_fisher_{kind}")
            close(blip.running_fisher[kind], running, atol=0)


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/spec" in GOLDEN])
@pytest.mark.parametrize("batches_of", ["published", "one", "all"])
def test_fisher(case: str, batches_of: str) -> None:
    spec = [int(s) for s in numbers(case, "spec")]
    channels, c1, k1, stride, padding, c2, k2, side, width, classes = spec
    inner = ((side + 2 * padding - k1) // stride + 1) - k2 + 1
    features = nn.Sequential()
    features.add_module("conv1", nn.Conv2d(channels, c1, k1, stride=stride, padding=padding))
    features.add_module("relu1", nn.ReLU(inplace=True))
    features.add_module("conv2", nn.Conv2d(c1, c2, k2))
    features.add_module("relu2", nn.ReLU(inplace=True))
    features.add_module("flatten", nn.Flatten())
    features.add_module("fc", nn.Linear(c2 * inner * inner, width))
    head = nn.Linear(width, classes)
    with torch.no_grad():
        for name, parameter in features.named_parameters():
            parameter.copy_(numbers(case, f"param_{name}"))
        for name, parameter in head.named_parameters():
            parameter.copy_(numbers(case, f"param_head.{name}"))
    x, order, targets = (numbers(case, name) for name in ("x", "order", "targets"))
    size = {"published": order.shape[1], "one": 1, "all": order.numel()}[batches_of]
    indices, labels = order.flatten(), targets.flatten().long()
    fisher = diagonal_fisher(
        features,
        lambda inputs: head(F.relu(features(inputs))),
        zip(x[indices].split(size), labels.split(size), strict=True),
        loss_batch_size=int(numbers(case, "batch_size")),
    )
    for name, value in fisher.items():
        expected = numbers(case, f"fisher_{name.replace('.', '_')}")
        close(value, expected, rtol=2e-5, atol=1e-6 * float(expected.max()))


def run_network(case: str) -> tuple[nn.Sequential, list[nn.Linear]]:
    """The MLP of a whole run, and a head for each task, with their first values."""
    side, width, classes, tasks = (int(numbers(case, name)) for name in ("side", "width", "classes", "tasks"))
    features = nn.Sequential(nn.Flatten(), nn.Linear(side * side, width))
    heads = [nn.Linear(width, classes) for _ in range(tasks)]
    with torch.no_grad():
        for name, parameter in run_parameters(features, heads).items():
            parameter.copy_(numbers(case, f"param_{name}"))
    return features, heads


def run_parameters(features: nn.Sequential, heads: list[nn.Linear]) -> dict[str, nn.Parameter]:
    """By their published names."""
    named = {f"features.0.{name}": parameter for name, parameter in features[1].named_parameters()}
    named |= {f"classifier.{i}.{name}": p for i, head in enumerate(heads) for name, p in head.named_parameters()}
    return named


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/epochs" in GOLDEN])
def test_whole_run(case: str) -> None:
    """Task after task of the published loop, estimate and consolidation, against a bare loop with this library."""
    features, heads = run_network(case)
    blip = BLIP(features, float(numbers(case, "f_prior")))
    for t, head in enumerate(heads):
        x, y = numbers(case, f"t{t}_x"), numbers(case, f"t{t}_y").long()
        optimizer = torch.optim.SGD([*features.parameters(), *head.parameters()], lr=float(numbers(case, "lr")))
        with blip.attach(optimizer):
            for epoch in numbers(case, f"t{t}_epochs"):
                for batch in epoch.split(int(numbers(case, "batch"))):
                    optimizer.zero_grad()
                    F.cross_entropy(head(F.relu(features(x[batch]))), y[batch]).backward()
                    optimizer.step()
        order, labels = numbers(case, f"t{t}_order"), numbers(case, f"t{t}_targets").long()
        fisher = diagonal_fisher(
            features,
            lambda inputs, head=head: head(F.relu(features(inputs))),
            zip(x[order], labels, strict=True),
            loss_batch_size=order.shape[1],
        )
        blip.consolidate(fisher)
        for kind in ("weight", "bias"):
            assert torch.equal(blip.bits[f"1.{kind}"].long(), numbers(case, f"t{t}_bits_{kind}"))
            close(blip.running_fisher[f"1.{kind}"], numbers(case, f"t{t}_running_fisher_{kind}"), rtol=1e-3, atol=0)
        for name, parameter in run_parameters(features, heads).items():
            close(parameter.detach(), numbers(case, f"t{t}_param_{name}"), rtol=0, atol=1e-5)


def baseline_task(case: str, t: int) -> Task:
    images, labels = numbers(case, f"t{t}_images"), numbers(case, f"t{t}_labels").long()
    whole = Examples(images, labels, torch.full((1, 1, 1), 1 / 255), torch.zeros(1, 1, 1))
    train = int(numbers(case, "train"))
    valid = replace(whole, images=images[train:], labels=labels[train:])
    return Task(f"task {t}", ("a", "b", "c"), whole.first(train), valid)


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/baseline_epochs" in GOLDEN])
def test_baselines(case: str, tmp_path: Path) -> None:
    """Whole runs of the published baselines: patience, best epochs, Fisher information and penalties."""
    name = case.removeprefix("baseline-")
    features, heads = run_network(case)
    network = MultiHeadNetwork(
        nn.Sequential(*features, nn.ReLU()), heads[0].in_features, [h.out_features for h in heads]
    )
    network.heads = nn.ModuleList(heads)
    batch = int(numbers(case, "train"))
    given = {"strength": float(numbers(case, "strength")), "fisher_batch_size": batch, "merge": False}
    settings = METHODS[name].Settings
    method = METHODS[name](network, settings(**{k: v for k, v in given.items() if k in settings.model_fields}), seed=0)
    tasks = [baseline_task(case, t) for t in range(len(heads))]
    sequence = SimpleNamespace(task=tasks.__getitem__, test=lambda t: tasks[t].valid)
    lr, epochs = float(numbers(case, "lr")), int(numbers(case, "baseline_epochs"))
    config = TrainingConfig(lr=lr, batch_size=batch, epochs=epochs)
    names, cpu = [task.name for task in tasks], torch.device("cpu")
    setup = Setup(network, method, [ACCURACY, HISTORY, COST, MEMORY], names, 0, Checkpoint(tmp_path), cpu, False)
    trainer = ImageTrainer(config, sequence, setup)
    after_task = method.after_task

    def compare(task: int, train: Examples) -> None:
        after_task(task, train)
        for key, parameter in run_parameters(features, heads).items():
            close(parameter.detach(), numbers(case, f"t{task}_param_{key}"), rtol=0, atol=1e-5)

    method.after_task = compare
    trainer.run(case)
    assert trainer.task == len(tasks)
