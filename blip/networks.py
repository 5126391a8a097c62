"""Networks: shared features and one linear head per task. No method in here."""

import math
from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from blip.settings import Settings


class MLP(Settings):
    """Fully connected layers with ReLU (paper: one hidden layer of 1200 units for MNIST)."""

    name: Literal["mlp"]
    hidden: list[PositiveInt]

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from images of `shape` (channels, height, width) to a vector, and its width."""
        widths = [math.prod(shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers), widths[-1]


NetworkSettings = MLP


class MultiHeadNetwork(nn.Module):
    """`features` shared by all tasks, and `heads[t]`, the linear classifier of task t."""

    def __init__(self, features: nn.Module, width: int, classes: list[int]) -> None:
        super().__init__()
        self.features = features
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in classes)

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Logits of `task`: (n, channels, height, width) to (n, classes of the task)."""
        logits: Tensor = self.heads[task](self.features(x))
        return logits


def build_network(settings: NetworkSettings, shape: tuple[int, ...], classes: list[int]) -> MultiHeadNetwork:
    """A network for images of `shape` and tasks of so many classes, initialised from torch's global generator."""
    return MultiHeadNetwork(*settings.features(shape), classes)
