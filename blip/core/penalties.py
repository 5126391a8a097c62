"""The quadratic penalty of EWC and of L2-transfer, with its gradient written out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class _Quadratic(torch.autograd.Function):
    """Autograd's own chain for this reads and writes the parameters about twice as often, and that is all it costs.

    One function for all parameters: on small networks one for each takes as long as the rest of a training step.
    """

    @staticmethod
    def forward(
        ctx: Any, strength: float, anchors: list[Tensor], stiffness: list[Tensor] | None, *parameters: Tensor
    ) -> Tensor:
        moved = torch._foreach_sub(parameters, anchors)
        forces = moved if stiffness is None else torch._foreach_mul(moved, stiffness)
        ctx.strength, ctx.forces = strength, forces
        terms = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(forces, moved, strict=True)]
        return strength / 2 * torch.stack(terms).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        forces, ctx.forces = ctx.forces, None  # nobody else's, so they become the result
        torch._foreach_mul_(forces, gradient * ctx.strength)
        return None, None, None, *forces


def quadratic_penalties(
    strength: float,
    parameters: Mapping[str, Tensor],
    anchors: Mapping[str, Tensor],
    stiffness: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """λ/2 · Σ s (θ - θ*)² over the parameters that have an anchor, with strength λ and stiffness s of their shapes (1
    where left out); differentiable in θ alone.
    """
    names = [name for name in parameters if name in anchors]
    penalty: Tensor = _Quadratic.apply(
        strength,
        [anchors[name] for name in names],
        [stiffness[name] for name in names] if stiffness else None,
        *(parameters[name] for name in names),
    )
    return penalty
