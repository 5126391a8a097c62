"""What claims say of the library: small checks, each of which measures a number.

A check returns what it measured and knows nothing of what is expected. All are on one CPU thread's scale: seconds each.
"""

import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip.claims.measures import NotThereError
from blip.claims.timing import Work, paired_ratios
from blip.core import formulas as q
from blip.core.fisher import diagonal_fisher
from blip.core.freezing import BLIP
from blip.results.statistics import NONE, Interval, bootstrap_interval
from blip.training.checkpoint import Checkpoint
from blip.training.loop import tensor_bytes


class Measured(NamedTuple):
    """What a check found."""

    value: float
    n: int
    """Of what was compared or timed."""
    unit: str
    interval: Interval = NONE


CHECKS: dict[str, Callable[[], Measured]] = {}
GOLDEN = "BLIP_GOLDEN"
"""The environment variable with the file of numbers computed with the published implementation."""


def _check(function: Callable[[], Measured]) -> Callable[[], Measured]:
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


# The formulas


@_check
def formulas_by_hand() -> Measured:
    """Values of the paper's formulas that differ from those worked out by hand."""
    k = torch.tensor([3, 3, 3, 19, 0], dtype=torch.uint8)
    value, bits = torch.tensor([0.3, 0.2, -0.8, 0.7, 0.3]), torch.tensor([1, 1, 2, 0, 3], dtype=torch.uint8)
    low, high = q.allowed_range(torch.tensor([0.5, 0.75]), torch.tensor([1, 2], dtype=torch.uint8), 1.0, 4)
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    pairs: list[tuple[Tensor, list[float]]] = [
        # ½·log2((F_t + (t+1)F) / ((t+2)F)): 2 bits where the ratio is 16, after 0 and after 2 tasks.
        (q.information_gain(31 * one, one, 0), [2.0]),
        (q.information_gain(61 * one, one, 2), [2.0]),
        (q.information_gain(0 * one, one, 0), [-0.5]),
        (q.grow_bits(k, torch.tensor([0.0, 0.001, 1.001, 7.0, math.inf]), 20), [3, 4, 5, 20, 20]),
        (q.quantise(value, bits, 1.0), [0.5, 0.0, -0.75, 0.0, 0.25]),
        (q.quantise(4 * value, bits, 4.0), [2.0, 0.0, -3.0, 0.0, 1.0]),
        (low, [0.0, 0.5]),
        (high, [1 - 2**-4, 1 - 2**-4]),  # of Q = 4
        (q.update_running_fisher(4 * one, two, 0), [3.0]),
        (q.update_running_fisher(5 * one, two, 1), [3.0]),
    ]
    values = [pair for found, expected in pairs for pair in zip(found.tolist(), expected, strict=True)]
    return Measured(sum(not abs(x - y) <= 1e-6 for x, y in values), len(values), "values")  # nan differs


@_check
def published_bits() -> Measured:
    """Frozen bits that differ from those that the published implementation computed."""
    differing = [b != expected for blip, want in _golden() for b, expected in _pairs(blip.bits, want["bits"])]
    return Measured(sum(differing), len(differing), "bits")


@_check
def published_weights() -> Measured:
    """Largest relative difference of a quantised weight from that of the published implementation."""
    pairs = [pair for blip, want in _golden() for pair in _pairs(blip.parameters, want["quantised"])]
    return Measured(_largest(abs(x - y) / max(abs(y), 1e-6) for x, y in pairs), len(pairs), "relative")


def _pairs(found: dict[str, Any], expected: dict[str, Tensor]) -> Iterable[tuple[float, float]]:
    for name, value in expected.items():
        yield from zip(found[name].flatten().tolist(), value.flatten().tolist(), strict=True)


def _golden() -> Iterable[tuple[BLIP, dict[str, dict[str, Tensor]]]]:
    """After each consolidation of each stored case, what this library has, and what is stored."""
    path = os.environ.get(GOLDEN, "")
    if not Path(path).is_file():
        raise NotThereError(
            f"the numbers of the published implementation: name the file in {GOLDEN}; make golden makes it"
        )
    with np.load(path) as archive:
        stored = {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}
    for case in sorted(key.split("/")[0] for key in stored if key.endswith("/initial_weight")):
        numbers = {key.removeprefix(f"{case}/"): value for key, value in stored.items() if key.startswith(f"{case}/")}
        out, inner, *kernel = numbers["initial_weight"].shape
        layer = nn.Conv2d(inner, out, (kernel[0], kernel[1])) if kernel else nn.Linear(inner, out)
        n = layer.weight[0].numel()
        bound = float(numbers["bound"]) * n**0.5
        blip = BLIP(layer, float(numbers["prior"]) / n, max_bits=int(numbers["max_bits"]), weight_range=bound)
        for task in range(sum(key.endswith("_proposed_weight") for key in numbers)):
            of = {
                what: {kind: numbers[f"t{task}_{what}_{kind}"] for kind in ("weight", "bias")}
                for what in ("proposed", "fisher", "bits", "quantised")
            }
            with torch.no_grad():
                for kind, parameter in layer.named_parameters():
                    parameter.copy_(of["proposed"][kind])
            blip.clamp_()
            blip.consolidate(of["fisher"])
            yield blip, of


# The Fisher information


def _networks() -> list[tuple[nn.Sequential, Tensor, Tensor]]:
    """Small networks of features and a head, with images and labels."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU())
    convolutions = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 2, stride=2), nn.ReLU()
    ).eval()
    labels = torch.randint(0, 4, (6,))
    return [
        (nn.Sequential(linear, nn.Linear(7, 4)).double(), torch.randn(6, 12).double(), labels),
        (
            nn.Sequential(convolutions, nn.Flatten(), nn.Linear(27, 4)).double(),
            torch.randn(6, 2, 6, 6).double(),
            labels,
        ),
    ]


@_check
def fisher_against_autograd() -> Measured:
    """Largest difference of the Fisher information from autograd's gradients, sample by sample, in shares of the
    tensor's largest; of each sample's own loss, and of its part of the mean loss of a batch of N = 100."""
    differences = []
    for (network, images, labels), batch in product(_networks(), (1, 100)):
        found = diagonal_fisher(network[0], network, [(images, labels)], loss_batch_size=batch)
        for name, parameter in network[0].named_parameters():
            squares = [
                torch.autograd.grad(F.cross_entropy(network(x[None]), label[None]) / batch, parameter)[0] ** 2
                for x, label in zip(images, labels, strict=True)
            ]
            expected = torch.stack(squares).mean(0)
            differences.append(float(((found[name] - expected).abs() / expected.max()).max()))
    return Measured(_largest(differences), len(differences), "relative")


def _largest(values: Iterable[float]) -> float:
    """nan where any is, which `max` may pass over."""
    return float(np.max([*values]))


@_check
def fisher_of_sampled_labels() -> Measured:
    """The estimate with sampled labels, in the mean over draws / the exact expectation over labels; of all tensors that
    which is furthest from it. A tensor's ratio is the slope of its elements over the expected ones."""
    (network, images, _), draws = _networks()[0], 50
    x, labels = images.repeat(200, 1), torch.Generator().manual_seed(0)
    exact = diagonal_fisher(network[0], network, [x], labels="exact")
    sampled = [diagonal_fisher(network[0], network, [x], generator=labels) for _ in range(draws)]
    ratios = {
        name: [float((draw[name] * value).sum() / value.square().sum()) for draw in sampled]
        for name, value in exact.items()
    }
    worst = max(ratios.values(), key=lambda of: abs(statistics.fmean(of) - 1))
    return Measured(statistics.fmean(worst), draws * len(x), "×", bootstrap_interval(worst))


# What it costs


PIXELS, UNITS = 784, 1200
"""Of the MLP of mnist5."""


def _mlp(consolidations: int = 0) -> tuple[nn.Sequential, BLIP]:
    """The MLP of mnist5 and its BLIP, after so many tasks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(PIXELS, UNITS), nn.ReLU(), nn.Linear(UNITS, 2))
    blip = BLIP(network, 1e-15, unprotected=["2"])
    for _ in range(consolidations):
        blip.consolidate(_fisher(blip))
    return network, blip


def _fisher(blip: BLIP) -> dict[str, Tensor]:
    return {name: torch.rand_like(p) * 1e-12 for name, p in blip.parameters.items()}


def _step(network: nn.Module, blip: BLIP | None) -> Work:
    """A training step at batch 64, as in mnist5."""
    x, labels = torch.randn(64, PIXELS), torch.randint(0, 2, (64,))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    if blip:
        blip.attach(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _timed(ours: Work, other: Work, calls: int = 20) -> Measured:
    ratios = paired_ratios(ours, other, calls=calls)
    return Measured(statistics.median(ratios), len(ratios), "×", bootstrap_interval(ratios, of=np.median))


@_check
def cost_of_a_step() -> Measured:
    """CPU time of a training step with BLIP in a later task / of plain SGD; the MLP of mnist5, batch 64."""
    return _timed(_step(*_mlp(1)), _step(_mlp()[0], None))


@_check
def cost_of_a_step_after_100_tasks() -> Measured:
    """CPU time of a training step with BLIP after 100 tasks / after 2."""
    return _timed(_step(*_mlp(100)), _step(*_mlp(2)))


@_check
def cost_of_a_tasks_end_after_100_tasks() -> Measured:
    """CPU time of Fisher information, of one batch of 100, and consolidation after 100 tasks / after 2."""
    return _timed(_end_of_task(*_mlp(100)), _end_of_task(*_mlp(2)), calls=5)


def _end_of_task(network: nn.Module, blip: BLIP) -> Work:
    x = torch.randn(100, PIXELS)
    fisher = _fisher(blip)
    tasks, bits, running_fisher = blip.tasks, dict(blip.bits), dict(blip.running_fisher)

    def end() -> None:
        # From the same state each time, not a task later.
        blip.tasks, blip.bits, blip.running_fisher = tasks, dict(bits), dict(running_fisher)
        diagonal_fisher(network, network, [x])
        blip.consolidate(fisher)

    return end


@_check
def cost_of_the_fisher() -> Measured:
    """CPU time of the Fisher information of a batch of 100 / of a forward and a backward pass of it."""
    network, _ = _mlp()
    x, labels = torch.randn(100, PIXELS), torch.randint(0, 2, (100,))

    def backward() -> None:
        network.zero_grad()
        F.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]

    return _timed(lambda: diagonal_fisher(network, network, [x]), backward, calls=5)


@_check
def bytes_per_parameter() -> Measured:
    """Of what BLIP keeps beside the network, after ten tasks."""
    _, blip = _mlp(10)
    parameters = sum(p.numel() for p in blip.parameters.values())
    return Measured(tensor_bytes(blip.state_dict()) / parameters, parameters, "bytes")


@_check
def bytes_after_100_tasks() -> Measured:
    """What BLIP keeps after 100 tasks / after one."""
    sizes = [tensor_bytes(_mlp(tasks)[1].state_dict()) for tasks in (100, 1)]
    return Measured(sizes[0] / sizes[1], 2, "×")


# What it promises


@_check
def move_under_any_optimizer() -> Measured:
    """Largest move of an anchor in five tasks of a network under Adam, AdamW, RMSprop and SGD with momentum, in units
    of what its frozen bits allow."""
    fast = [partial(kind, lr=0.05) for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)]
    moves = [move for make in (*fast, partial(torch.optim.SGD, lr=0.5, momentum=0.9)) for move in _moves_under(make)]
    if _largest(moves) == 0:
        raise RuntimeError("no anchor moved, so nothing was tried")
    return Measured(_largest(moves), len(moves), "× allowed")


def _moves_under(make: Callable[..., torch.optim.Optimizer]) -> Iterable[float]:
    """Of each task and parameter tensor, the largest move of an anchor."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3))
    blip, x = BLIP(network, 1e-6), torch.randn(60, 10)
    before = {name: (torch.zeros_like(p), blip.bits[name]) for name, p in blip.parameters.items()}
    for _ in range(5):
        optimizer = make(network.parameters())
        handle, labels = blip.attach(optimizer), torch.randint(0, 3, (60,))
        for _ in range(40):
            optimizer.zero_grad()
            F.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        handle.remove()
        blip.consolidate(diagonal_fisher(network, network, [x]))
        after = {name: (anchor.clone(), blip.bits[name]) for name, anchor in blip.anchors().items()}
        for name, bound in blip.bounds.items():
            (old, k_old), (new, k_new) = ((_steps(v, k, bound), k.double()) for v, k in (before[name], after[name]))
            yield float((new * 2 ** (k_old - k_new) - old).abs().max())
        before = after


def _steps(anchor: Tensor, bits: Tensor, bound: float) -> Tensor:
    """How many times B·2^-k each anchor is: a whole number, which float32 may miss by its rounding."""
    return torch.round(anchor.double() / bound * 2 ** bits.double())


RUN = """\
name: resume
data: {sources: [{name: digits, classes_per_task: 2}]}
network: {name: mlp, hidden: [20]}
training: {lr: 0.2, batch_size: 16, epochs: 25}
methods: {blip: {f_prior: 1e-12, fisher_batch_size: 10, fisher_batches: 28}}
"""
WITH_CHECKPOINTS = "import sys, blip.training.loop as loop; loop.SECONDS_BETWEEN_CHECKPOINTS = 0; "
WITH_CHECKPOINTS += "from blip.cli import main; sys.exit(main(sys.argv[1:]))"
KILLS = (1, 3)
"""Finished tasks, of five, at which the run is killed: before the first there are no frozen bits that it could lose."""


@_check
def resumed_run() -> Measured:
    """Files of a run that was killed in later tasks (SIGKILL) and started again that differ from those of one never
    killed."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        _finish(_start(whole))
        for tasks in KILLS:
            _kill_at_a_checkpoint(killed, tasks)
        _finish(_start(killed))
        # run.json holds when it was made, and cost.csv how long each part took.
        names = sorted({path.name for path in _results(whole).iterdir()} - {"run.json", "cost.csv"})
        differ = [(_results(whole) / name).read_bytes() != (_results(killed) / name).read_bytes() for name in names]
        return Measured(sum(differ), len(names), "files")


def _results(folder: Path) -> Path:
    return folder / "resume" / "blip" / "seed0"


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    (folder / "resume.yaml").write_text(RUN)
    places = {"--out": folder, "--data": folder / "data", "--checkpoints": folder / "checkpoints", "--raw": folder}
    arguments = ["train", folder / "resume.yaml", "--method", "blip", "--device", "cpu"]
    arguments += [part for pair in places.items() for part in pair]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITH_CHECKPOINTS, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def _finish(process: "subprocess.Popen[bytes]") -> None:
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"training ended with status {process.returncode}: {said.decode()[-200:]}")


def _kill_at_a_checkpoint(folder: Path, tasks: int) -> None:
    """Start the run and kill it as soon as it has a checkpoint with frozen bits of so many finished tasks."""
    process = _start(folder)
    while process.poll() is None and _finished_tasks(folder) < tasks:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL or (_results(folder) / "run.json").exists():
        raise RuntimeError("the run ended before it could be killed")


def _finished_tasks(folder: Path) -> int:
    """That the run's checkpoint holds; 0 without one, or without frozen bits in it."""
    states = [Checkpoint(path).load(torch.device("cpu")) for path in folder.glob("checkpoints/*")]
    return max((s["task"] for s in states if s and any(k.any() for k in s["method"]["bits"].values())), default=0)
