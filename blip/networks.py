"""Networks: shared features and one linear head per task. No method in here."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from blip.errors import BlipError
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


class AlexNet(Settings):
    """The AlexNet-like network of the paper (design of Serrà et al., 2018), for square images of side s.

    Convolutions of 64·mul, 128·mul and 256·mul channels with kernels s // 8, s // 10 and 2, each with ReLU, dropout
    and 2×2 max-pooling; then two hidden linear layers with ReLU and dropout.
    """

    name: Literal["alexnet"]
    mul: PositiveFloat = 1.0
    """Factor on the numbers of channels."""
    hidden: tuple[PositiveInt, PositiveInt] = (2048, 2048)
    dropout: tuple[float, float, float, float, float] = (0.2, 0.2, 0.2, 0.2, 0.2)
    """After each of the three convolutions and the two linear layers."""

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from images of `shape` (channels, side, side) to a vector, and its width."""
        channels, side, _ = shape
        layers: list[nn.Module] = []
        kernels = (side // 8, side // 10, 2)
        if min(kernels) < 1:
            raise BlipError(f"network alexnet: expected images of at least 30 pixels a side, found {side}")
        for base, kernel, dropout in zip((64, 128, 256), kernels, self.dropout, strict=False):
            outputs = round(base * self.mul)
            layers += [nn.Conv2d(channels, outputs, kernel), nn.ReLU(), nn.Dropout(dropout), nn.MaxPool2d(2)]
            channels, side = outputs, (side - kernel + 1) // 2
        widths = (channels * side * side, *self.hidden)
        layers.append(nn.Flatten())
        for (inputs, outputs), dropout in zip(pairwise(widths), self.dropout[3:], strict=True):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*layers), widths[-1]


NetworkSettings = Annotated[MLP | AlexNet, Field(discriminator="name")]


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


def build_network(settings: MLP | AlexNet, shape: tuple[int, ...], classes: list[int]) -> MultiHeadNetwork:
    """A network for images of `shape` and tasks of so many classes, initialised from torch's global generator."""
    return MultiHeadNetwork(*settings.features(shape), classes)
