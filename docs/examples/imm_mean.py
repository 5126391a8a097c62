"""Incremental moment matching, mean mode (Lee et al., 2017), as an example of a method of one's own.

A copy of this file in `blip/methods/` and a line `imm-mean: {}` under `methods` in an experiment file is all it takes.
"""

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from blip.core.penalties import QuadraticPenalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied
from blip.schema import Schema


@register
class MeanIMM(Method):
    """Mean-IMM: stay near the old weights, λ/2 · Σ (θ - θ_old)², then take the mean of those after each task."""

    name = "imm-mean"
    remembered = ("old",)

    class Settings(Schema):
        strength: NonNegativeFloat = 0.01
        """λ"""

    def __init__(self, network: MultiHeadNetwork, settings: Any, seed: int) -> None:
        super().__init__(network, settings, seed)
        self.old: dict[str, Tensor] = {}

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        if not self.old:
            return None
        return QuadraticPenalty(self.settings.strength, dict(self.network.shared.named_parameters()), self.old)

    @torch.no_grad()
    def after_task(self, task: int, train: Examples) -> None:
        for name, p in self.network.shared.named_parameters():
            if self.old:
                p.copy_((task * self.old[name] + p) / (task + 1))
        self.old = copied(dict(self.network.shared.named_parameters()))
