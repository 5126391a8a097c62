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
from blip.schema import Schema


@register
class LwF(Method):
    """LwF (Li and Hoiem, 2016): distil, on the new task's images, what the last network's earlier heads predict."""

    name = "lwf"
    version = 2
    clip_norm = 100.0

    class Settings(Schema):
        strength: NonNegativeFloat = 2.0
        """λ"""
        temperature: PositiveFloat = 1.0
        """T, by which the logits of both networks are divided."""

    def __init__(self, network: MultiHeadNetwork, settings: "LwF.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.teacher: MultiHeadNetwork | None = None
        self.tasks = 0
        self.heads: tuple[nn.Parameter, nn.Parameter]
        self.teacher_heads: tuple[nn.Parameter, nn.Parameter]
        """All heads of earlier tasks as one layer, of the network and of the teacher."""

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        if self.teacher is None or self.network.one_head:
            return self.network.parameters()
        return [*self.network.parameters_of(self.tasks).values(), *self.heads]

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            targets = F.softmax(self._predictions(self.teacher.features(inputs), self.teacher_heads), 1)
        heads = self._earlier_heads()
        # The mean over images and heads, times the heads: the sum of what each earlier one has lost.
        penalty: Tensor = (
            self.settings.strength * len(heads[0]) * F.cross_entropy(self._predictions(hidden, heads), targets)
        )
        return penalty

    def _earlier_heads(self) -> tuple[Tensor, Tensor]:
        """As one layer. One head for all tasks by its own weights: its two losses have one gradient, clipped as one."""
        head = self.network.heads[0] if self.network.one_head else None
        if not isinstance(head, nn.Linear):
            return self.heads
        return head.weight[None], self.heads[1] if head.bias is None else head.bias[None]

    def _predictions(self, hidden: Tensor, heads: tuple[Tensor, Tensor]) -> Tensor:
        """Logits / temperature of the earlier heads: (images · tasks, classes)."""
        weight, bias = heads
        logits: Tensor = F.linear(hidden, weight.flatten(0, 1), bias.flatten()) / self.settings.temperature
        return logits.view(len(hidden) * len(weight), -1)

    def after_task(self, task: int, train: Examples) -> None:
        self._set_teacher(deepcopy(self.network), task + 1)

    def _set_teacher(self, teacher: MultiHeadNetwork, tasks: int) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        never = NEVER * self.settings.temperature
        self.teacher_heads = _one_layer(teacher.heads[:tasks], never)
        self.heads = _one_layer(self.network.heads[:tasks], never)
        self.tasks = tasks

    def state_dict(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "teacher": self.teacher.state_dict() if self.teacher else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["tasks"]:
            teacher = deepcopy(self.network)
            teacher.load_state_dict(state["teacher"])
            self._set_teacher(teacher, state["tasks"])


NEVER = -1e4
"""Logit / temperature of a class that a head lacks: its probability is exactly 0, and 0 times its logarithm too."""


def _one_layer(heads: Iterable[nn.Module], never: float) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of one linear layer that computes all `heads`, which are in its memory from now on.

    Each is filled up to the most classes, with logits of `never`. A layer for each head would make a step's time grow
    with the number of tasks.
    """
    layers = [head for head in heads if isinstance(head, nn.Linear)]
    classes = max(layer.out_features for layer in layers)
    first = layers[0].weight
    weight = nn.Parameter(first.new_zeros(len(layers), classes, layers[0].in_features), first.requires_grad)
    bias = nn.Parameter(first.new_full((len(layers), classes), never), first.requires_grad)
    for layer, rows, biases in zip(layers, weight.data, bias.data, strict=True):
        rows[: layer.out_features] = layer.weight.data
        layer.weight.data = rows[: layer.out_features]
        biases[: layer.out_features] = 0 if layer.bias is None else layer.bias.data
        if layer.bias is None:
            bias.requires_grad_(False)
        else:
            layer.bias.data = biases[: layer.out_features]
    return weight, bias
