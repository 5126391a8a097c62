"""The quadratic penalty: its value, and the gradient that is written out."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_image_training import make_trainer
from torch import nn

from blip.core.penalties import QuadraticPenalty
from blip.networks import copied
from blip.training.descent import GradientDescent


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.booleans())
def test_the_gradient_is_that_of_the_value(seed: int, strength: float, stiff: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    shapes = {"weight": (3, 2, 2), "bias": (3,), "free": (4,)}
    parameters = {name: nn.Parameter(torch.randn(shape, generator=random)) for name, shape in shapes.items()}
    anchors = {name: torch.randn(shapes[name], generator=random) for name in ("weight", "bias")}
    stiffness = {name: torch.rand(shapes[name], generator=random) for name in anchors} if stiff else None
    penalty = QuadraticPenalty(strength, parameters, anchors, stiffness)
    squares = [
        (1 if stiffness is None else stiffness[name]) * (parameters[name] - anchor) ** 2
        for name, anchor in anchors.items()
    ]
    torch.testing.assert_close(penalty.value(), strength / 2 * sum(x.sum() for x in squares))

    loss = sum((p**3).sum() for p in parameters.values())
    expected = torch.autograd.grad(loss + penalty.value(), list(parameters.values()), retain_graph=True)
    loss.backward()
    penalty.add_gradients()
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5 * max(1.0, strength))
    assert any(not torch.equal(p.grad, 3 * p**2) for p in parameters.values())


def test_a_parameter_without_a_gradient_stays_without() -> None:
    parameter = nn.Parameter(torch.ones(2))
    QuadraticPenalty(1.0, {"a": parameter}, {"a": torch.zeros(2)}).add_gradients()
    assert parameter.grad is None


@pytest.mark.parametrize(("method", "strength"), [("ewc", 10.0), ("imm-mode", 1.0), ("mas", 0.01), ("si", 1.0)])
def test_a_run_trains_and_validates_with_it(method: str, strength: float, tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, method, tmp_path / "c", **{f"methods__{method}__strength": strength})
    trainer.run("test")
    trainer.task = 1
    trainer.method.before_task(1)
    network, train = trainer.network, trainer.sequence.task(1).train
    with torch.no_grad():
        for parameter in network.shared.parameters():
            parameter += 0.01
    moved = copied(network.state_dict())
    penalty = trainer.method.quadratic_penalty()
    assert penalty is not None
    value = penalty.value()
    assert value > 1e-4
    parameters = dict(network.shared.named_parameters())
    pulls = torch.autograd.grad(value, list(parameters.values()))
    with_it, without = (trainer.evaluate(train, 1, penalty=asked)[0] for asked in (True, False))
    assert with_it - without == pytest.approx(value.item(), rel=1e-4)

    after = {}
    for used in (0.0, strength):
        trainer.method.settings = trainer.method.settings.model_copy(update={"strength": used})
        network.load_state_dict(moved)
        trainer._train_step(GradientDescent(network.parameters(), 0.1), train, torch.arange(32))
        after[used] = copied(dict(network.shared.named_parameters()))
    for name, pull in zip(parameters, pulls, strict=True):
        torch.testing.assert_close(after[0.0][name] - after[strength][name], 0.1 * pull, rtol=1e-3, atol=1e-6)
    assert any(pull.abs().max() > 1e-4 for pull in pulls)
