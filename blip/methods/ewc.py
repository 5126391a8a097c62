"""Elastic weight consolidation: a spring on every weight, as stiff as the weight is important."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from blip.data import Examples
from blip.fisher import batch_gradient_fisher
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.penalties import quadratic_penalty
from blip.seeding import address, generator
from blip.settings import Settings


@register
class EWC(Method):
    """EWC (Kirkpatrick et al., 2017): penalty λ/2 · Σ F (θ - θ*)², F averaged over the tasks so far.

    Over all parameters, heads included; those of earlier tasks get no gradient and so no penalty either.
    """

    name = "ewc"
    clip_norm = 100.0

    class Settings(Settings):
        strength: NonNegativeFloat = 5000.0
        """λ"""
        fisher_batch_size: PositiveInt = 32
        """The published Fisher squares batch gradients, so λ belongs to a batch size: that of training."""

    def __init__(self, network: MultiHeadNetwork, settings: "EWC.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.fisher: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        if not self.anchor:
            return None
        terms = [
            quadratic_penalty(parameter, self.anchor[name], self.fisher[name])
            for name, parameter in self.network.named_parameters()
        ]
        penalty: Tensor = self.settings.strength * torch.stack(terms).sum()
        return penalty

    def after_task(self, task: int, train: Examples) -> None:
        torch.manual_seed(address(self.seed, "fisher dropout", task))
        fisher = batch_gradient_fisher(
            self.network,
            lambda x: self.network(x, task),
            train.batches(self.settings.fisher_batch_size, generator(self.seed, "fisher", task)),
        )
        self.fisher = {
            name: (new + task * self.fisher[name]) / (task + 1) if task else new for name, new in fisher.items()
        }
        self.anchor = {name: parameter.detach().clone() for name, parameter in self.network.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return {"fisher": self.fisher, "anchor": self.anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.fisher, self.anchor = state["fisher"], state["anchor"]
