"""The quadratic penalty of EWC and of L2-transfer, with its gradient written out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class _Quadratic(torch.autograd.Function):
    """Autograd's own chain for this reads and writes the parameters about twice as often, and that is all it costs."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, anchor: Tensor, stiffness: Tensor | None) -> Tensor:
        moved = parameter - anchor
        force = moved if stiffness is None else moved * stiffness
        ctx.force = force
        return torch.dot(force.flatten(), moved.flatten()) / 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        force, ctx.force = ctx.force, None  # nobody else's, so it becomes the result
        return force.mul_(gradient), None, None


def quadratic_penalty(parameter: Tensor, anchor: Tensor, stiffness: Tensor | None = None) -> Tensor:
    """½ · Σ s (θ - θ*)² with stiffness s of the parameter's shape (1 where left out); differentiable in θ alone."""
    penalty: Tensor = _Quadratic.apply(parameter, anchor, stiffness)
    return penalty


def quadratic_penalties(
    strength: float,
    parameters: Mapping[str, Tensor],
    anchors: Mapping[str, Tensor],
    stiffness: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The sum over the parameters that have an anchor, times the strength."""
    terms = [
        quadratic_penalty(parameter, anchors[name], stiffness[name] if stiffness else None)
        for name, parameter in parameters.items()
        if name in anchors
    ]
    return strength * torch.stack(terms).sum()
