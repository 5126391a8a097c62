"""Learning without forgetting: the new network should still say what the old one said."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Schema


@register
class LwF(Method):
    """LwF (Li and Hoiem, 2016): distil, on the new task's images, what the last network's earlier heads predict."""

    name = "lwf"
    clip_norm = 100.0

    class Settings(Schema):
        strength: NonNegativeFloat = 2.0
        """λ"""
        temperature: PositiveFloat = 1.0

    def __init__(self, network: MultiHeadNetwork, settings: "LwF.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.teacher: MultiHeadNetwork | None = None
        self.tasks = 0

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        temperature = self.settings.temperature
        with torch.no_grad():
            old = self.teacher.features(inputs)
            targets = [F.softmax(self.teacher.heads[t](old) / temperature, 1) for t in range(self.tasks)]
        terms = [
            F.cross_entropy(self.network.heads[t](hidden) / temperature, target) for t, target in enumerate(targets)
        ]
        penalty: Tensor = self.settings.strength * torch.stack(terms).sum()
        return penalty

    def after_task(self, task: int, train: Examples) -> None:
        self._set_teacher(deepcopy(self.network), task + 1)

    def _set_teacher(self, teacher: MultiHeadNetwork, tasks: int) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.tasks = tasks

    def state_dict(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "teacher": self.teacher.state_dict() if self.teacher else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["tasks"]:
            teacher = deepcopy(self.network)
            teacher.load_state_dict(state["teacher"])
            self._set_teacher(teacher, state["tasks"])
