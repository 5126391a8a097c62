"""Plain gradient descent and its schedule beside PyTorch's own."""

import random
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from blip.methods import METHODS
from blip.training.descent import GradientDescent, PatienceSchedule


def test_steps_are_those_of_pytorchs_sgd_bit_by_bit() -> None:
    ours = nn.Sequential(nn.Linear(9, 70), nn.Tanh(), nn.Linear(70, 3), nn.Linear(3, 2))
    ours[3].requires_grad_(False)
    theirs = deepcopy(ours)
    descent, sgd = GradientDescent(ours.parameters(), 0.07), torch.optim.SGD(theirs.parameters(), lr=0.07)
    for i in range(10):
        x = torch.randn(5, 9)
        for network in (ours, theirs):
            network(x).square().sum().backward()
        descent.step()
        sgd.step()
        sgd.zero_grad()
        if i == 5:
            descent.rate.fill_(0.07 / 3)
            sgd.param_groups[0]["lr"] = 0.07 / 3
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(ours[0].weight, nn.Linear(9, 70).weight)


@pytest.mark.parametrize("largest", [1e-3, 1.0, 4.999999, 5.0, 5.000002, 1e3])
def test_clipping_is_pytorchs_bit_by_bit(largest: float) -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(n)) for n in (1, 1, 2)] for _ in range(2))
    for parameters in (ours, theirs):
        for parameter, gradient in zip(parameters[:2], (3.0, 4.0), strict=True):  # a norm of 5; the last has none
            parameter.grad = torch.full((1,), gradient)
    GradientDescent(ours, 0.1).clip(largest)
    nn.utils.clip_grad_norm_(theirs, largest)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    ours[0].grad = torch.full((1,), torch.nan)
    GradientDescent(ours, 0.1).clip(largest)
    assert ours[1].grad is not None
    assert ours[1].grad.isnan().all(), "what is not finite is not passed over"


def test_a_step_drops_gradients_and_passes_over_parameters_without_one() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    descent = GradientDescent([used, unused], 0.5)
    (2 * used).sum().backward()
    descent.step()
    descent.step()
    assert used.tolist() == [0, 0]
    assert unused.tolist() == [1, 1]
    assert used.grad is None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_learning_rates_are_those_of_pytorchs_schedule(patience: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.05)
    theirs = ReduceLROnPlateau(optimizer, factor=1 / 3, patience=patience - 1, threshold=0, eps=0)
    ours = PatienceSchedule(0.05, patience, 3)
    draw = random.Random(patience)
    rates = []
    for epoch in range(300):
        # In steps, so that there are ties; downwards, so that there are new minima.
        loss = round(draw.gauss(0, 0.4) - epoch / 50, 1) if epoch % 50 else float("nan")
        theirs.step(loss)
        ours.step(loss)
        if epoch % 7 == 0:
            ours = PatienceSchedule(**asdict(ours))  # as from a checkpoint
        rates.append(ours.lr)
        assert ours.lr == optimizer.param_groups[0]["lr"], epoch
    assert len(set(rates)) > 3


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="older ones import their compiler by themselves"
)
def test_training_does_without_pytorchs_compiler(tiny: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from blip.cli import main
        for folder in ("data", "out", "checkpoints"):
            sys.argv += [f"--{folder}", folder]
        assert main() == 0
        late = {"torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes"} & set(sys.modules)
        assert not late, f"a second of imports: {late}"
    """
    arguments = ["train", str(tiny), "--method", *METHODS, "--set", "training.epochs=1"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
