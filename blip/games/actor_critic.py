"""The published network for Atari games: convolutions shared by all games, an actor and a critic head for each."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from pydantic import PositiveInt
from torch import nn

from blip.networks import MultiHeadNetwork
from blip.schema import Schema

STACK, SIDE = 4, 84
SHAPE = (STACK, SIDE, SIDE)
"""Of an observation: the last frames, in grey."""
KERNELS, STRIDES = (8, 4, 3), (4, 2, 1)


class AtariNetworkConfig(Schema):
    """Three convolutions (8×8 stride 4, 4×4 stride 2, 3×3) and a linear layer, each with ReLU.

    Initialised as published: orthogonal with gain √2, biases 0.
    """

    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128)
    hidden: PositiveInt = 1024

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from frames of `shape` (frames, 84, 84), scaled to [0, 1], to a vector, and its width."""
        frames, side, _ = shape
        layers: list[nn.Module] = []
        for (inputs, outputs), kernel, stride in zip(pairwise((frames, *self.channels)), KERNELS, STRIDES, strict=True):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride), nn.ReLU()]
            side = (side - kernel) // stride + 1
        layers += [nn.Flatten(), nn.Linear(self.channels[-1] * side * side, self.hidden), nn.ReLU()]
        features = nn.Sequential(*layers)
        features.apply(_orthogonal(math.sqrt(2)))
        return features, self.hidden


class ActorCriticNetwork(MultiHeadNetwork):
    """A network of shared `features`, `heads[t]` for the logits of game t's actions, and `critics[t]` for its value."""

    of_each_task: ClassVar[tuple[str, ...]] = ("heads", "critics")

    def __init__(self, features: nn.Module, width: int, actions: list[int]) -> None:
        super().__init__(features, width, actions)
        self.critics = nn.ModuleList(nn.Linear(width, 1) for _ in actions)
        self.heads.apply(_orthogonal(0.01))
        self.critics.apply(_orthogonal(1.0))


def _orthogonal(gain: float) -> Callable[[nn.Module], None]:
    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain)
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    return initialise
