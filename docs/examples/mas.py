"""Memory aware synapses (Aljundi et al., 2018), as an example of a method of one's own.

A copy of this file in `blip/methods/` and a line `mas: {}` under `methods` in an experiment file is all it takes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from blip.core.penalties import quadratic_penalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Schema


@register
class MAS(Method):
    """MAS: penalty λ/2 · Σ Ω (θ - θ*)², Ω the sensitivity of the squared output norm to each weight."""

    name = "mas"

    class Settings(Schema):
        strength: NonNegativeFloat = 1.0
        """λ"""

    def __init__(self, network: MultiHeadNetwork, settings: "MAS.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        if not self.anchor:
            return None
        terms = [
            quadratic_penalty(parameter, self.anchor[name], self.importance[name])
            for name, parameter in self.network.features.named_parameters()
        ]
        return self.settings.strength * torch.stack(terms).sum()

    def after_task(self, task: int, train: Examples) -> None:
        parameters = dict(self.network.features.named_parameters())
        self.network.eval()
        for x, _ in train.batches(100):
            norm = self.network(x, task).square().sum() / len(train)
            gradients = torch.autograd.grad(norm, list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                self.importance[name] = self.importance.get(name, torch.zeros_like(gradient)) + gradient.abs()
        self.anchor = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"importance": self.importance, "anchor": self.anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.importance, self.anchor = state["importance"], state["anchor"]
