"""Subspaces of a layer's inputs: bases that grow, and projections of weight gradients to their complements."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from blip.core.layers import Layer
from blip.core.per_sample import unfold


@dataclass(frozen=True)
class OrthogonalComplement:
    """Of a subspace, by whichever has fewer columns: the subspace's basis or the complement's."""

    basis: Tensor
    """(n, r); columns are orthonormal."""
    own: bool
    """Whether it is the complement's."""

    @classmethod
    def of(cls, basis: Tensor) -> "OrthogonalComplement":
        """Of the subspace with this basis (n, r)."""
        n, r = basis.shape
        if 2 * r <= n:
            return cls(basis, False)
        return cls(torch.linalg.qr(basis, mode="complete")[0][:, r:].contiguous(), True)

    def project(self, rows: Tensor) -> Tensor:
        """Each row (…, n) without its part in the subspace."""
        part = rows @ self.basis @ self.basis.T
        return part if self.own else rows - part


def grown(basis: Tensor | None, inputs: Tensor, share: float) -> Tensor:
    """The basis (n, r), and directions of `inputs` (n, samples) until it holds `share` of their energy.

    Saha et al. (2021), Eq. 8 and 9. The first basis is, as in the authors' code, the largest that holds less (Eq. 5 is
    about one direction more).
    """
    if inputs.shape[1] > len(inputs):  # triangular, with the same directions and sizes: a smaller SVD, without squares
        inputs = torch.linalg.qr(inputs.T, mode="r")[1].T
    old = inputs.new_empty(len(inputs), 0) if basis is None else basis
    directions, sizes, _ = torch.linalg.svd(inputs - old @ (old.T @ inputs), full_matrices=False)
    energy, parts = inputs.square().sum(), sizes.square()
    held = (energy - parts.sum() + parts.cumsum(0)) / energy
    new = int(((held if basis is None else held - parts / energy) < share).sum())
    return torch.cat([old, directions[:, : min(new, len(inputs) - old.shape[1])]], 1)


def columns(layer: Layer, x: Tensor) -> Tensor:
    """What the rows of a layer's weight are multiplied by: (inputs, samples · positions)."""
    return x.flatten(0, -2).T if isinstance(layer, nn.Linear) else unfold(layer, x).transpose(0, 2).flatten(1)


def saving_projection(x: Tensor, complement: OrthogonalComplement) -> AbstractContextManager[object]:
    """While this is open, a linear layer called with `x` (n, inputs) keeps for backward the projection of `x`.

    The gradient of its weight is the sum of products with what it kept, so it is the projected one, for a
    product with n rows instead of one with a row for each unit. The weight itself, which it keeps too, is transposed.
    """
    kept: Callable[[Tensor], Tensor] = lambda t: (  # noqa: E731
        complement.project(t) if t.shape == x.shape and t.is_contiguous() else t
    )
    return saved_tensors_hooks(kept, lambda t: t)


@contextmanager
def inputs_of(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
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
