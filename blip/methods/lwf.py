"""Learning without forgetting: the new network should still say what the old one said."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Settings


@register
class LwF(Method):
    """LwF (Li and Hoiem, 2016): distil, on the new task's images, what the last network's earlier heads predict."""

    name = "lwf"
    version = 2
    clip_norm = 100.0

    class Settings(Settings):
        strength: NonNegativeFloat = 2.0
        """λ"""
        temperature: PositiveFloat = 1.0

    def __init__(self, network: MultiHeadNetwork, settings: "LwF.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.teacher: MultiHeadNetwork | None = None
        self.teacher_heads: tuple[Tensor, Tensor]
        self.tasks = 0

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            targets = F.softmax(self._predictions(self.teacher.features(inputs), self.teacher_heads), 1)
        predictions = self._predictions(hidden, _one_layer(self.network.heads[: self.tasks]))
        # The mean over images and tasks, times the tasks: the sum of what each earlier head has lost.
        penalty: Tensor = self.settings.strength * self.tasks * F.cross_entropy(predictions, targets)
        return penalty

    def _predictions(self, hidden: Tensor, heads: tuple[Tensor, Tensor]) -> Tensor:
        """Logits / temperature of the earlier heads: (images · tasks, classes)."""
        return F.linear(hidden, *heads).div(self.settings.temperature).view(len(hidden) * self.tasks, -1)

    def after_task(self, task: int, train: Examples) -> None:
        self._set_teacher(deepcopy(self.network), task + 1)

    def _set_teacher(self, teacher: MultiHeadNetwork, tasks: int) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.teacher_heads = _one_layer(teacher.heads[:tasks])
        self.tasks = tasks

    def state_dict(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "teacher": self.teacher.state_dict() if self.teacher else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["tasks"]:
            teacher = deepcopy(self.network)
            teacher.load_state_dict(state["teacher"])
            self._set_teacher(teacher, state["tasks"])


NEVER = -1e4
"""Logit of a class that a head does not have: its probability is exactly 0, and 0 times its logarithm too."""


def _one_layer(heads: Iterable[nn.Module]) -> tuple[Tensor, Tensor]:
    """Weight and bias of one linear layer that computes all `heads`, each filled up to the most classes.

    A product for each head would make a step's time grow with the number of tasks.
    """
    layers = [head for head in heads if isinstance(head, nn.Linear)]
    classes = max(layer.out_features for layer in layers)
    weights = [_filled(layer.weight, classes, 0) for layer in layers]
    biases = [_filled(layer.bias, classes, NEVER) for layer in layers]
    return torch.cat(weights), torch.cat(biases)


def _filled(rows: Tensor, count: int, value: float) -> Tensor:
    """`rows` and then others of `value`, so many that there are `count`."""
    missing = count - len(rows)
    return torch.cat([rows, rows.new_full((missing, *rows.shape[1:]), value)]) if missing else rows
