"""Elastic weight consolidation: a spring on every weight, as stiff as the weight is important."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from blip.core.fisher import batch_gradient_fisher, diagonal_fisher
from blip.core.penalties import quadratic_penalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Schema
from blip.seeding import address, generator


@register
class EWC(Method):
    """EWC (Kirkpatrick et al., 2017): penalty λ/2 · Σ F (θ - θ*)², F averaged or summed over the tasks so far.

    Over all parameters where not said otherwise; heads of earlier tasks get no gradient and so no penalty either.
    """

    name = "ewc"
    clip_norm = 100.0

    class Settings(Schema):
        strength: NonNegativeFloat = 5000.0
        """λ"""
        fisher_batch_size: PositiveInt = 32
        """The published Fisher squares batch gradients, so λ belongs to a batch size: that of training."""
        fisher: Literal["batch gradients", "sampled"] = "batch gradients"
        """`sampled`: of the features alone, for labels drawn from the prediction. What is published for games, squared
        gradients of batches of n such labels, is the Fisher information proper / n in the mean: here it is computed."""
        over_tasks: Literal["mean", "sum"] = "mean"
        """`sum` with `sampled` is online EWC as published for games."""

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
            if name in self.anchor
        ]
        penalty: Tensor = self.settings.strength * torch.stack(terms).sum()
        return penalty

    def after_task(self, task: int, train: Examples) -> None:
        new = self._sampled(task, train) if self.settings.fisher == "sampled" else self._batch_gradients(task, train)
        if self.settings.over_tasks == "sum":
            self.fisher = {name: value + self.fisher.get(name, 0.0) for name, value in new.items()}
        else:
            self.fisher = {
                name: (value + task * self.fisher[name]) / (task + 1) if task else value for name, value in new.items()
            }
        self.anchor = {name: p.detach().clone() for name, p in self.network.named_parameters() if name in new}

    def _batch_gradients(self, task: int, train: Examples) -> dict[str, Tensor]:
        torch.manual_seed(address(self.seed, "fisher dropout", task))
        return batch_gradient_fisher(
            self.network,
            lambda x: self.network(x, task),
            train.batches(self.settings.fisher_batch_size, generator(self.seed, "fisher", task)),
        )

    def _sampled(self, task: int, train: Examples) -> dict[str, Tensor]:
        fisher = diagonal_fisher(
            self.network.features,
            lambda x: self.network(x, task),
            (x for x, _ in train.batches(self.settings.fisher_batch_size)),
            generator=generator(self.seed, "fisher labels", task, device=train.labels.device),
        )
        return {f"features.{name}": value / self.settings.fisher_batch_size for name, value in fisher.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"fisher": self.fisher, "anchor": self.anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.fisher, self.anchor = state["fisher"], state["anchor"]
