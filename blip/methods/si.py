"""Synaptic intelligence: a weight is important by how much of the loss's fall it brought about."""

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from blip.core.penalties import QuadraticPenalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied
from blip.schema import Schema


@register
class SI(Method):
    """SI (Zenke et al., 2017): penalty c · Σ Ω (θ - θ*)², Ω a path integral over training (Eq. 3 to 5).

    ω = -Σ g·Δθ over the steps of a task, g the gradient of its loss without the penalty: what the weight's way has
    lowered the loss by. Ω ← max(Ω + ω / (Δ² + ξ), 0) with Δ the weight's whole way, to where the task left it; the
    maximum is the authors' code's. Where a task ends with the weights of its best epoch, ω still has the steps of the
    epochs after it. Over what tasks share.
    """

    name = "si"
    version = 3
    remembered = ("importance", "anchor", "path")

    class Settings(Schema):
        strength: NonNegativeFloat = 0.1
        """c"""
        damping: PositiveFloat = 0.1
        """ξ"""

    def __init__(self, network: MultiHeadNetwork, settings: "SI.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.parameters = dict(network.shared.named_parameters())
        self.importance: dict[str, Tensor] = {}
        """Ω; nothing before the end of the first task."""
        self.anchor = copied(self.parameters)
        """θ*, and where the task began."""
        self.path: dict[str, Tensor] = {}
        """ω of the present task; nothing between tasks."""
        self.step: dict[str, tuple[Tensor, Tensor]] = {}
        """Each weight and its gradient, between the hooks around a step."""

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        if not self.importance:
            return None
        return QuadraticPenalty(2 * self.settings.strength, self.parameters, self.anchor, self.importance)

    def before_task(self, task: int) -> None:
        if not self.path:
            self.path = {name: torch.zeros_like(p) for name, p in self.anchor.items()}

    @torch.no_grad()
    def before_step(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:  # still without the penalty's part
                self.step[name] = parameter.detach().clone(), parameter.grad.clone()

    @torch.no_grad()
    def after_step(self) -> None:
        for name, (before, gradient) in self.step.items():
            self.path[name].addcmul_(gradient, before.sub_(self.parameters[name]))
        self.step = {}

    def after_task(self, task: int, train: Examples) -> None:
        weights = copied(self.parameters)
        for name, path in self.path.items():
            way = weights[name] - self.anchor[name]
            new = path / (way.square() + self.settings.damping)
            self.importance[name] = (new + self.importance.get(name, 0)).clamp(min=0)
        self.path = {}
        self.anchor = weights
