"""Gradient projection memory: weights move only in directions that the inputs of earlier tasks have no part in."""

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from blip.core.layers import named_layers
from blip.core.projections import OrthogonalComplement, columns, grown, inputs_of, saving_projection
from blip.data import Examples
from blip.errors import BlipError
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import PositiveFraction, Schema
from blip.seeding import generator


@register
class GPM(Method):
    """GPM (Saha et al., 2021): ∇W ← ∇W - ∇W·U·Uᵀ, the columns of U a basis of a layer's inputs in earlier tasks.

    A layer's update is a sum of outer products with its inputs, so without its part in their span (Eq. 6 and 7) what
    the layer makes of them stays. Of a linear layer the inputs lose that part before the products are taken, a batch
    instead of a whole weight. Biases and batch-norm's parameters, whose input is always there, are learned in the first
    task alone; so are, as `freeze_statistics` has it, running statistics. Not for games, whose Adam scales each number
    of a gradient by itself: its steps leave the subspace that a gradient has been projected to.
    """

    name = "gpm"
    version = 2
    supervised = True
    remembered = ("bases",)

    class Settings(Schema):
        images: list[PositiveInt] = Field(default=[125], min_length=1)
        """Whose inputs are looked at, for each layer in turn; the last number stands for all further ones."""
        threshold: list[PositiveFraction] = Field(default=[0.97], min_length=1)
        """ε: the share of the inputs' energy that a basis is to hold, likewise."""
        threshold_step: NonNegativeFloat = 0.003
        """By so much more in each task. It must not reach 1: what holds all energy leaves nothing to learn with."""

    def __init__(self, network: MultiHeadNetwork, settings: "GPM.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        if network.batch_statistics and max(settings.images) < 2:
            raise BlipError("methods.gpm.images: expected 2 or more of them where batches normalise themselves")
        last = len(network.outputs) - 1
        if max(settings.threshold) + last * settings.threshold_step >= 1:
            raise BlipError(
                f"methods.gpm: expected less than 1 in each of {last + 1} tasks, found threshold "
                f"{max(settings.threshold):g} and threshold_step {settings.threshold_step:g}"
            )
        self.layers = named_layers(network.shared)
        self.bases: dict[str, Tensor] = {}
        """Of each layer, (inputs, r); columns are orthonormal."""
        self.complements: dict[str, OrthogonalComplement] = {}
        """Of what the bases span, while a task trains."""
        self.of_inputs: set[str] = set()
        """Layers whose gradients are of inputs without their part in it."""
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Linear):
                layer.forward = partial(self._linear, name, layer.forward)  # type: ignore[method-assign]

    def before_task(self, task: int) -> None:
        if self.bases:
            self.network.train_weights_alone()
        self.complements = {name: OrthogonalComplement.of(basis) for name, basis in self.bases.items()}

    def _linear(self, name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What the layer computes; its weight's gradient will be without the part that it is not to have."""
        self.of_inputs.discard(name)
        too_coarse = torch.is_autocast_enabled(x.device.type)
        if name not in self.complements or x.dim() != 2 or not x.is_contiguous() or too_coarse:
            return forward(x)
        self.of_inputs.add(name)
        with saving_projection(x, self.complements[name]):
            return forward(x)

    @torch.no_grad()
    def before_step(self) -> None:
        for name, complement in self.complements.items():
            gradient = self.layers[name].weight.grad
            if gradient is not None and name not in self.of_inputs:
                gradient.copy_(complement.project(gradient.flatten(1)).view_as(gradient))

    @torch.no_grad()
    def after_task(self, task: int, train: Examples) -> None:
        settings = self.settings
        index = train.sample(max(settings.images), generator(self.seed, "gpm images", task))
        self.network.eval()
        with inputs_of(self.layers) as inputs:
            self.network(train.batch(index)[0], task)
        if unseen := set(self.layers) - set(inputs):
            raise BlipError(f"methods.gpm: expected layers that the network calls, which {min(unseen)} is not")
        for i, (name, layer) in enumerate(self.layers.items()):
            images = inputs[name][: settings.images[min(i, len(settings.images) - 1)]]
            share = settings.threshold[min(i, len(settings.threshold) - 1)] + task * settings.threshold_step
            self.bases[name] = grown(self.bases.get(name), columns(layer, images), share)
