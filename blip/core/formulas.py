"""The formulas of BLIP as pure functions on tensors (paper, sections 3.2 to 3.4).

Every parameter θ lies in a fixed range [-B, B] and has k frozen bits, 0 ≤ k ≤ Q. B, Q and the number of tasks are
Python numbers; everything else is a tensor of the parameter's shape.
"""

import math

import torch
from torch import Tensor


def information_gain(fisher: Tensor, running_fisher: Tensor, tasks: int) -> Tensor:
    """Bits of information that one more task brings to each parameter (paper, equation 11).

    `fisher` is the Fisher information of the task's data alone, `running_fisher` the average over the prior and the
    `tasks` tasks before. The gain is ½·log2(new posterior precision / old), negative where the task says little.
    """
    ratio = (fisher + running_fisher * (tasks + 1)) / (running_fisher * (tasks + 2))
    # Natural logarithm, then one factor: the published order of operations, so that ceilings agree to the bit.
    return (0.5 / math.log(2)) * torch.log(ratio)


def grow_bits(bits: Tensor, gain: Tensor, max_bits: int) -> Tensor:
    """Frozen bits after a task: k ← min(k + max(⌈gain⌉, 0), Q), as uint8."""
    grown = bits.float() + torch.ceil(gain).clamp_(min=0)
    return grown.clamp_(max=max_bits).to(torch.uint8)


def quantise(value: Tensor, bits: Tensor, bound: float) -> Tensor:
    """Round θ to the nearest multiple of B·2^-k; 0 where no bit is frozen (k = 0)."""
    levels = _power_of_two(bits.int())
    # By a tensor: a GPU multiplies by the rounded inverse of a number instead.
    rounded = torch.round(value / value.new_full((), bound) * levels) / levels * bound
    return torch.where(bits == 0, 0.0, rounded)


def allowed_range(anchor: Tensor, bits: Tensor, bound: float, max_bits: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that training may give each parameter (paper, section 3.4).

    [a - B·2^-k, a + B·2^-k] intersected with [-B(1 - 2^-Q), B(1 - 2^-Q)], where `anchor` a is the quantised value.
    Never empty, since |a| ≤ B.
    """
    radius = bound * _power_of_two(-bits.int())
    limit = range_limit(bound, max_bits)
    return (anchor - radius).clamp_(-limit, limit), (anchor + radius).clamp_(-limit, limit)


def range_limit(bound: float, max_bits: int) -> float:
    """Largest absolute value of any parameter, B(1 - 2^-Q)."""
    return bound * (1.0 - 0.5**max_bits)


def anchor_moves(before: Tensor, bits: Tensor, anchor: Tensor, bits_now: Tensor, bound: float) -> Tensor:
    """How far consolidation moved each anchor, in units of what it may: B·2^-k of the k before; float64.

    `before` with k = `bits` is what it was before, `anchor` with `bits_now` ≥ `bits` what came of it. Anchors are whole
    multiples of B·2^-k, so this is exact for k ≤ 22: float32 has no more places.
    """
    bound = float(torch.tensor(bound, dtype=torch.float32))  # what anchors are multiples of
    levels, levels_now = _power_of_two(bits.int()).double(), _power_of_two(bits_now.int()).double()
    old, new = torch.round(before.double() / bound * levels), torch.round(anchor.double() / bound * levels_now)
    return (new * (levels / levels_now) - old).abs()


def update_running_fisher(fisher: Tensor, running_fisher: Tensor, tasks: int) -> Tensor:
    """Average over the prior and all tasks seen: F ← ((t + 1)·F + F_t) / (t + 2), with t = `tasks` before this one."""
    return (running_fisher * (tasks + 1) + fisher) / (tasks + 2)


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^k as float32, exactly, for int32 k in [-126, 127]: `torch.exp2` promises to be exact on no device."""
    return ((exponent + 127) << 23).view(torch.float32)
