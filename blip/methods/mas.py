"""Memory aware synapses: a weight is important by how much the output changes with it."""

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from blip.core.penalties import QuadraticPenalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied
from blip.schema import Schema
from blip.seeding import generator


@register
class MAS(Method):
    """MAS (Aljundi et al., 2018): penalty λ · Σ Ω (θ - θ*)², Ω the mean of |∂‖f(x)‖² / ∂θ| over images (Eq. 2 to 4).

    Labels are not looked at. Ω adds up over tasks and is of what they share.
    """

    name = "mas"
    version = 2
    remembered = ("importance", "anchor")

    class Settings(Schema):
        strength: NonNegativeFloat = 1.0
        """λ"""
        batch_size: PositiveInt = 20
        """Absolute values are of the sum of so many images' gradients, as in the authors' code; 1: of each, as in the
        paper, with a backward pass for every image."""

    def __init__(self, network: MultiHeadNetwork, settings: "MAS.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.parameters = {name: p for name, p in network.shared.named_parameters() if p.requires_grad}
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        if not self.anchor:
            return None
        return QuadraticPenalty(2 * self.settings.strength, self.parameters, self.anchor, self.importance)

    def after_task(self, task: int, train: Examples) -> None:
        self.network.eval()
        for name, parameter in self.parameters.items():
            self.importance.setdefault(name, torch.zeros_like(parameter))
        for x, _ in self.batches(train, self.settings.batch_size, generator(self.seed, "mas", task)):
            norms = self.network(x, task).square().sum() / len(train)
            gradients = torch.autograd.grad(norms, list(self.parameters.values()))
            for importance, gradient in zip(self.importance.values(), gradients, strict=True):
                importance += gradient.abs()
        self.anchor = copied(self.parameters)
