"""The quadratic penalty of EWC, SI, MAS and L2-transfer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class QuadraticPenalty:
    """λ/2 · Σ s (θ - θ*)² over those parameters θ that have an anchor θ*.

    As a term of the loss its gradient would cost about twice as many passes over arrays as large as the network, and on
    a small one these are what a penalty costs; so `add_gradients` writes the gradient out.
    """

    strength: float
    """λ"""
    parameters: Mapping[str, Tensor]
    anchors: Mapping[str, Tensor]
    """θ*, by the names of their parameters."""
    stiffness: Mapping[str, Tensor] | None = None
    """s, of the anchors' names and shapes; 1 where left out."""

    def value(self) -> Tensor:
        """A number, differentiable in θ."""
        terms = []
        for name, anchor in self.anchors.items():
            squares = (self.parameters[name] - anchor).square()
            terms.append((squares if self.stiffness is None else squares * self.stiffness[name]).sum())
        return self.strength / 2 * torch.stack(terms).sum()

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add λ s (θ - θ*) to the gradient of each parameter that has one."""
        found = ((name, self.parameters[name].grad) for name in self.anchors)
        gradients = {name: gradient for name, gradient in found if gradient is not None}
        if not gradients:
            return
        sums = list(gradients.values())
        moved = torch._foreach_sub([self.parameters[n] for n in gradients], [self.anchors[n] for n in gradients])
        if self.stiffness is None:
            torch._foreach_add_(sums, moved, alpha=self.strength)
        else:
            torch._foreach_addcmul_(sums, moved, [self.stiffness[n] for n in gradients], self.strength)
