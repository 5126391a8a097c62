"""Compute, with the published code itself, the numbers that test_golden.py and test_golden_games.py compare with.

    python tests/make_golden.py PUBLISHED OUT --seed 0

PUBLISHED is a clone of github.com/Yujun-Shi/BLIP (`make golden` makes one), whose code is run. OUT gets golden.npz and
golden-games.npz, arrays by `case/name`; every seed draws other layers, values and labels.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blip.errors import BlipError
from blip.files import atomic_path

Numbers = dict[str, Tensor | float | list[int]]
IMAGES, BASELINES, GAMES = "ImageClassification/src", "miniImageNetClassification/src", "RL"
GAMES_F_PRIOR = 5e-18

# Small runs: of BLIP, and of the baselines, whose batches are all images, so that no order matters.
TASKS, SIDE, WIDTH, CLASSES = 3, 6, 24, 3
EPOCHS, IMAGES_A_TASK, BATCH, LR, F_PRIOR = 4, 96, 16, 0.05, 1e-9
BASELINE_EPOCHS, TRAIN, VALID, BASELINE_LR = 60, 48, 24, 0.3
STRENGTHS = {"sgd": None, "sgd-frozen": None, "ewc": 5000.0, "imm-mode": 1.0, "lwf": 2.0}


def main() -> int:
    parser = argparse.ArgumentParser(description="Numbers computed with the published implementation of BLIP.")
    parser.add_argument("published", type=Path, help="a clone of github.com/Yujun-Shi/BLIP")
    parser.add_argument("out", type=Path, help="folder for golden.npz and golden-games.npz")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        images = published(args.published, IMAGES, "networks.quant_layer")
        training = published(args.published, IMAGES, "approaches.blip")
        mlp = published(args.published, IMAGES, "networks.q_mlp")
        fisher = published(args.published, IMAGES, "approaches.blip_utils")
        games = published(args.published, GAMES, "rl_module.quant_layer")
        torch.manual_seed(args.seed)
        np.random.seed(args.seed)  # the published batches are drawn from this stream
        write(
            args.out / "golden.npz",
            {
                "linear": consolidation(images.Linear_Q(7, 5, max_bit=20, F_prior=1e-6)),
                "linear8": consolidation(images.Linear_Q(11, 6, max_bit=8, F_prior=1e-4)),
                "conv": consolidation(images.Conv2d_Q(3, 4, 3, max_bit=20, F_prior=1e-6)),
                "fisher": fisher_information(images, fisher),
                "run": whole_run(mlp, training, fisher),
            }
            | dict(baseline_runs(args.published)),
        )
        write(args.out / "golden-games.npz", dict(game_layers(games)))
    except BlipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def published(clone: Path, folder: str, module: str) -> Any:
    """A module of the published code, which finds its own ones from `folder` on."""
    file = f"{folder}/{module.replace('.', '/')}.py"
    if not (clone / file).is_file():
        raise BlipError(f"{clone}: expected a clone of github.com/Yujun-Shi/BLIP, it has no {file}")
    sys.path.insert(0, str(clone / folder))
    return import_module(module)


def write(path: Path, cases: dict[str, Numbers]) -> None:
    arrays = {f"{case}/{name}": np.asarray(value) for case, numbers in cases.items() for name, value in numbers.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{path}: {len(arrays)} arrays")


def propose_(layer: Any) -> None:
    """Values as after an optimizer's step; one in three is far outside what the layer allows."""
    with torch.no_grad():
        for parameter, bound in ((layer.weight, layer.bound), (layer.bias, 1.0)):
            far = torch.rand(parameter.shape) < 1 / 3
            parameter += torch.randn(parameter.shape) * bound * torch.where(far, 2.0, 0.02)


def draw_fisher_(layer: Any) -> None:
    """Fisher information from a thousandth of the prior to ten million times it: 0 to 11 bits a task."""
    for value in (layer.Fisher_w, layer.Fisher_b):
        value.copy_(layer.F_prior * 10 ** (10 * torch.rand(value.shape) - 3))


def values(layer: Any, name: str) -> Numbers:
    return {f"{name}_weight": layer.weight.detach().clone(), f"{name}_bias": layer.bias.detach().clone()}


def buffers(layer: Any, buffer: str, name: str) -> Numbers:
    of = {"weight": getattr(layer, f"{buffer}_w"), "bias": getattr(layer, f"{buffer}_b")}
    return {f"{name}_{kind}": value.clone() for kind, value in of.items()}


def running_fisher(layer: Any) -> Numbers:
    return {"running_fisher_weight": layer.Fisher_w_old.clone(), "running_fisher_bias": layer.Fisher_b_old.clone()}


def one_task(layer: Any, task: int) -> Numbers:
    """A step, the clamp and the consolidation of one layer, and what each leaves."""
    propose_(layer)
    numbers = values(layer, "proposed")
    layer.clipping()
    numbers |= values(layer, "clipped")
    draw_fisher_(layer)
    numbers |= buffers(layer, "Fisher", "fisher")
    consolidate_(layer, task)
    return numbers | buffers(layer, "bit_alloc", "bits") | values(layer, "quantised") | running_fisher(layer)


def consolidate_(layer: Any, task: int) -> None:
    layer.update_bits(task=task, C=0.5 / math.log(2))
    layer.sync_weight()
    layer.update_fisher(task=task)


def consolidation(layer: Any, tasks: int = 4) -> Numbers:
    numbers: Numbers = {
        "bound": layer.bound,
        "prior": layer.F_prior,
        "max_bits": layer.max_bit,
        "initial_weight": layer.weight.detach().clone(),
    }
    for task in range(tasks):
        numbers |= {f"t{task}_{name}": value for name, value in one_task(layer, task).items()}
    return numbers


def game_layers(module: Any) -> Iterator[tuple[str, Numbers]]:
    """Those of the published network for games, and two with more outputs than a fan-in, where n differs."""
    layers = {
        "conv1": module.Conv2d_Q(4, 32, 8, F_prior=GAMES_F_PRIOR),
        "conv2": module.Conv2d_Q(32, 64, 4, F_prior=GAMES_F_PRIOR),
        "conv3": module.Conv2d_Q(64, 128, 3, F_prior=GAMES_F_PRIOR),
        "linear": module.Linear_Q(128 * 7 * 7, 1024, F_prior=GAMES_F_PRIOR),
        "wide_conv": module.Conv2d_Q(2, 40, 3, F_prior=GAMES_F_PRIOR),
        "wide_linear": module.Linear_Q(12, 30, F_prior=GAMES_F_PRIOR),
    }
    for name, layer in layers.items():
        numbers: Numbers = {"weight_shape": list(layer.weight.shape), "f_prior": GAMES_F_PRIOR}
        numbers |= {"bound": layer.bound, "prior": layer.F_prior}
        if layer.weight.numel() < 10_000:
            task = one_task(layer, 0)
            left_out = ("quantised_bias", "running_fisher_bias")
            numbers |= {key: value for key, value in task.items() if key not in left_out}
        yield name, numbers


class Heads(nn.Module):
    """Features and heads as the published code calls them: one output for each task."""

    def __init__(self, features: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.head(torch.relu(self.features(x)))]


def next_shuffle(size: int) -> Tensor:
    """The order in which the published code will go through `size` images next."""
    state = np.random.get_state()
    order = np.random.permutation(size)
    np.random.set_state(state)
    return torch.from_numpy(order)


def estimated(module: Any, network: nn.Module, task: int, x: Tensor, batch: int, batches: int) -> Numbers:
    """Run the published estimate on `network`; which images and labels it drew, (batches, batch) each."""
    order = next_shuffle(len(x))[: batch * batches].view(batches, batch)
    drawn: list[Tensor] = []

    class Recording(torch.distributions.Categorical):
        def sample(self, sample_shape: Any = ()) -> Tensor:
            drawn.append(super().sample(sample_shape))
            return drawn[-1]

    module.Categorical = Recording
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the hooks of its time
        module.estimate_fisher(task, "cpu", network, x, None, batch_size=batch, num_batch=batches)
    return {"order": order, "targets": torch.stack(drawn)}


def fisher_information(layers: Any, estimate: Any) -> Numbers:
    """The published estimate on two convolutions and a linear layer."""
    features = nn.Sequential()
    features.add_module("conv1", layers.Conv2d_Q(2, 3, 3, stride=2, padding=1))
    features.add_module("relu1", nn.ReLU())
    features.add_module("conv2", layers.Conv2d_Q(3, 4, 2))
    features.add_module("relu2", nn.ReLU())
    features.add_module("flatten", nn.Flatten())
    features.add_module("fc", layers.Linear_Q(64, 8))
    network = Heads(features, nn.Linear(8, 3))
    x = torch.randn(18, 2, 9, 9)
    spec = [2, 3, 3, 2, 1, 4, 2, 9, 8, 3]  # these sizes, as test_golden.py reads them
    numbers: Numbers = {"spec": spec, "batch_size": 6, "x": x}
    numbers |= estimated(estimate, network, 0, x, batch=6, batches=3)
    for name, value in (*features.named_parameters(), *network.head.named_parameters(prefix="head")):
        numbers[f"param_{name}"] = value.detach().clone()
    for name in ("conv1", "conv2", "fc"):
        numbers |= buffers(features.get_submodule(name), "Fisher", f"fisher_{name}")
    return numbers


def whole_run(networks: Any, training: Any, estimate: Any) -> Numbers:
    """A few tasks of the published MLP: epochs of the published loop, its estimate, its consolidation."""
    heads = [(task, CLASSES) for task in range(TASKS)]
    shape = SimpleNamespace(inputsize=(1, SIDE, SIDE), taskcla=heads, ndim=WIDTH, F_prior=F_PRIOR, max_bit=20)
    settings = SimpleNamespace(lr=LR, momentum=0, weight_decay=0.0, sbatch=BATCH, nepochs=EPOCHS, num_tasks=TASKS)
    for of in (shape, settings):
        of.device, of.output, of.checkpoint, of.experiment = "cpu", "", "", ""
    network = networks.Net(shape)
    approach = training.Appr(network, settings)
    numbers: Numbers = {"side": SIDE, "width": WIDTH, "classes": CLASSES, "tasks": TASKS}
    numbers |= {"epochs": EPOCHS, "batch": BATCH, "lr": LR, "f_prior": F_PRIOR} | parameters(network)
    for task in range(TASKS):
        of_task = task_of_run(network, approach, estimate, task)
        numbers |= {f"t{task}_{name}": value for name, value in of_task.items()}
    return numbers


def task_of_run(network: Any, approach: Any, estimate: Any, task: int) -> Numbers:
    """What a task draws (images, their order, that of the estimate and its labels), and what it leaves."""
    x = torch.randn(IMAGES_A_TASK, 1, SIDE, SIDE)
    y = torch.randint(0, CLASSES, (IMAGES_A_TASK,))
    approach.optimizer = approach._get_optimizer()
    epochs = []
    for _ in range(EPOCHS):
        epochs.append(next_shuffle(len(x)))
        approach.train_epoch(task, x, y)
    numbers: Numbers = {"x": x, "y": y, "epochs": torch.stack(epochs)}
    numbers |= estimated(estimate, network, task, x, batch=8, batches=6)
    layer = network.features[0]
    consolidate_(layer, task)
    return numbers | buffers(layer, "bit_alloc", "bits") | running_fisher(layer) | parameters(network)


def parameters(network: nn.Module) -> Numbers:
    return {f"param_{name}": value.detach().clone() for name, value in network.named_parameters()}


class MLP(nn.Module):
    """Features and a head for each task, by the names that the published baselines expect."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(SIDE * SIDE, WIDTH), nn.ReLU())
        self.classifier = nn.ModuleList(nn.Linear(WIDTH, CLASSES) for _ in range(TASKS))

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = self.features(x.flatten(1))
        return [head(hidden) for head in self.classifier]


def baseline_runs(clone: Path) -> Iterator[tuple[str, Numbers]]:
    """Runs of the published baselines: schedule, best epoch, Fisher information, penalties."""
    Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]  # their Fisher asks for a GPU
    first, tasks = MLP(), [blurred_classes() for _ in range(TASKS)]
    for name, strength in STRENGTHS.items():
        module = published(clone, BASELINES, f"approaches.{name.replace('-', '_')}")
        network = deepcopy(first)
        settings = SimpleNamespace(device="cpu", lr=BASELINE_LR, momentum=0, sbatch=TRAIN, nepochs=BASELINE_EPOCHS)
        settings.checkpoint = ""
        approach = module.Appr(network, settings, **({"lamb": strength} if strength else {}))
        numbers: Numbers = {"lr": BASELINE_LR, "baseline_epochs": BASELINE_EPOCHS, "strength": strength or 0.0}
        numbers |= {"side": SIDE, "width": WIDTH, "classes": CLASSES, "tasks": TASKS, "train": TRAIN}
        numbers |= parameters(network)
        for task, (images, labels) in enumerate(tasks):
            train, valid = zip((images / 255).split([TRAIN, VALID]), labels.split([TRAIN, VALID]), strict=True)
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # a line an epoch
                approach.train(task, [train], [valid])
            of_task = {"images": images.byte(), "labels": labels} | parameters(network)
            numbers |= {f"t{task}_{key}": value for key, value in of_task.items()}
        yield f"baseline-{name}", numbers


def blurred_classes() -> tuple[Tensor, Tensor]:
    """Grey values (images, 1, side, side) of 0 to 255 around one image for each class, and labels."""
    labels = torch.randint(0, CLASSES, (TRAIN + VALID,))
    images = 100 * torch.rand(CLASSES, 1, SIDE, SIDE)[labels] + 150 * torch.rand(len(labels), 1, SIDE, SIDE)
    return images.round(), labels


if __name__ == "__main__":
    sys.exit(main())
