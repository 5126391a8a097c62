"""Gradient projection memory: weights move only in directions that the inputs of earlier tasks have no part in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from blip.core.layers import Layer, named_layers
from blip.core.per_sample import unfold
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Schema
from blip.seeding import generator

Share = Annotated[float, Field(gt=0, le=1)]


@register
class GPM(Method):
    """GPM (Saha et al., 2021): ∇W ← ∇W - ∇W·U·Uᵀ, the columns of U a basis of a layer's inputs in earlier tasks.

    A layer's update is a sum of outer products with its inputs, so without its part in their span (Eq. 6 and 7) what
    the layer makes of them stays. Biases and batch-norm's parameters, whose input is always there, are learned in the
    first task alone; so are, as `freeze_statistics` has it, running statistics.
    """

    name = "gpm"
    remembered = ("bases",)

    class Settings(Schema):
        images: list[PositiveInt] = Field(default=[125], min_length=1)
        """Whose inputs are looked at, for each layer in turn; the last number stands for all further ones."""
        threshold: list[Share] = Field(default=[0.97], min_length=1)
        """ε: the share of the inputs' energy that a basis is to hold, likewise."""
        threshold_step: NonNegativeFloat = 0.003
        """By so much more in each task."""

    def __init__(self, network: MultiHeadNetwork, settings: "GPM.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.layers = named_layers(network.shared)
        self.bases: dict[str, Tensor] = {}
        """Of each layer, (inputs, r); columns are orthonormal."""
        self.projections: dict[str, tuple[Tensor, bool]] = {}

    def before_task(self, task: int) -> None:
        if self.bases:
            self.network.train_weights_alone()
        self.projections = {name: _smaller(basis) for name, basis in self.bases.items()}

    @torch.no_grad()
    def before_step(self) -> None:
        for name, (basis, free) in self.projections.items():
            gradient = self.layers[name].weight.grad
            if gradient is not None:
                rows = gradient.flatten(1)
                part = (rows @ basis @ basis.T).view_as(gradient)
                gradient.copy_(part if free else gradient - part)

    @torch.no_grad()
    def after_task(self, task: int, train: Examples) -> None:
        settings = self.settings
        index = train.indices(max(settings.images), generator(self.seed, "gpm images", task))[0]
        self.network.eval()
        with _inputs(self.layers) as inputs:
            self.network(train.batch(index)[0], task)
        for i, (name, layer) in enumerate(self.layers.items()):
            images = inputs[name][: settings.images[min(i, len(settings.images) - 1)]]
            share = settings.threshold[min(i, len(settings.threshold) - 1)] + task * settings.threshold_step
            self.bases[name] = grown(self.bases.get(name), _columns(layer, images), share)


def grown(basis: Tensor | None, inputs: Tensor, share: float) -> Tensor:
    """The basis (n, r), and directions of `inputs` (n, samples) until it holds `share` of their energy (Eq. 8 and 9).

    The first basis is, as in the authors' code, the largest that holds less (Eq. 5 is about one direction more).
    """
    if inputs.shape[1] > len(inputs):  # triangular, with the same directions and sizes: a smaller SVD, without squares
        inputs = torch.linalg.qr(inputs.T, mode="r")[1].T
    old = inputs.new_empty(len(inputs), 0) if basis is None else basis
    directions, sizes, _ = torch.linalg.svd(inputs - old @ (old.T @ inputs), full_matrices=False)
    energy, parts = inputs.square().sum(), sizes.square()
    held = (energy - parts.sum() + parts.cumsum(0)) / energy
    new = int(((held if basis is None else held - parts / energy) < share).sum())
    return torch.cat([old, directions[:, : min(new, len(inputs) - old.shape[1])]], 1)


def _smaller(basis: Tensor) -> tuple[Tensor, bool]:
    """The basis or one of the space orthogonal to it, whichever has fewer columns, and whether it is the latter."""
    n, r = basis.shape
    return (basis, False) if 2 * r <= n else (torch.linalg.qr(basis, mode="complete")[0][:, r:].contiguous(), True)


def _columns(layer: Layer, x: Tensor) -> Tensor:
    """What the rows of a layer's weight are multiplied by: (inputs, samples · positions)."""
    return x.flatten(0, -2).T if isinstance(layer, nn.Linear) else unfold(layer, x).transpose(0, 2).flatten(1)


@contextmanager
def _inputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The inputs of these layers when the network runs, by name."""
    seen: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
