"""BLIP for any network and any optimizer: freeze bits after a task, keep them frozen while training."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from blip.core import formulas as q
from blip.core.fisher import Layer, layer_parameters

if TYPE_CHECKING:
    from torch.optim import Optimizer


def fan_in(layer: Layer) -> int:
    """Inputs of one output unit: in_features, or in_channels / groups · kernel size."""
    return layer.weight[0].numel()


def max_fan_in_outputs(layer: Layer) -> int:
    """The larger of the fan-in and the number of output units: out_features, or out_channels without the kernel."""
    return max(fan_in(layer), layer.weight.shape[0])


class BLIP:
    """Bit-level information preserving for the linear and convolution layers of `features`.

    Parameters that do not train (`requires_grad` off when this is built) are left alone.

    After t tasks, with quantised values ("anchors") a and k frozen bits:

    * while the next task trains, every parameter stays in [a - B·2^-k, a + B·2^-k] ∩ [-B(1 - 2^-Q), B(1 - 2^-Q)];
    * the next consolidation never lowers k and moves the anchor by at most B·2^-k (of the k before it).

    So a parameter with k = Q = 20 frozen bits moves by at most a millionth of its range in a task, and one with k = 0
    is free. That is exactly what the published rule promises: the leading k bits are kept up to one unit in the last
    place per task, not as a bit pattern (0.0111… may become 0.1000…).

    State: per parameter its lowest and highest value (float32), running Fisher information (float32) and frozen bits
    (uint8), 13 bytes, however many tasks there have been. Build it after moving the network to its device.

    Args:
        features: the shared part of the network; heads stay outside.
        f_prior: the prior's Fisher information is this times n. It belongs to the `loss_batch_size` of the Fisher
            estimate.
        max_bits: Q, the most bits that can be frozen.
        weight_range: weights lie in ±`weight_range`/√n.
        bias_range: biases lie in ±`bias_range`.
        n: the layer's size in ranges and prior: its fan-in, or, published for games, the larger of fan-in and number
            of output units (of a convolution max(out_channels, in_channels·k·k)).
    """

    def __init__(
        self,
        features: nn.Module,
        f_prior: float,
        *,
        max_bits: int = 20,
        weight_range: float = 6.0,
        bias_range: float = 1.0,
        n: Literal["fan-in", "max-fan-in-outputs"] = "fan-in",
    ) -> None:
        if not all(0 < v < math.inf for v in (f_prior, weight_range, bias_range)) or not 1 <= max_bits <= 24:
            raise ValueError("f_prior and ranges must be positive and finite, max_bits between 1 and 24")
        self.max_bits = max_bits
        self.tasks = 0
        self.parameters: dict[str, nn.Parameter] = {}
        self.bounds: dict[str, float] = {}
        self.running_fisher: dict[str, Tensor] = {}
        self.bits: dict[str, Tensor] = {}
        for name, (parameter, layers) in layer_parameters(features).items():
            size = fan_in(layers[0]) if n == "fan-in" else max_fan_in_outputs(layers[0])
            self.parameters[name] = parameter
            self.bounds[name] = weight_range / math.sqrt(size) if parameter.dim() > 1 else bias_range
            self.running_fisher[name] = torch.full_like(parameter, f_prior * size)
            self.bits[name] = torch.zeros_like(parameter, dtype=torch.uint8)
        if not self.parameters:
            raise ValueError("features has no nn.Linear or nn.Conv1d/2d/3d layer that trains")
        self._ranges = self._first_ranges()

    def _first_ranges(self) -> dict[str, tuple[Tensor, Tensor] | tuple[float, float]]:
        # Before the first consolidation every parameter of a tensor has one range: two numbers do, and a clamp by
        # numbers reads no further memory.
        limits = {name: q.range_limit(bound, self.max_bits) for name, bound in self.bounds.items()}
        return {name: (-limit, limit) for name, limit in limits.items()}

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator | None = None) -> None:
        """Draw weights from N(0, 1/n) clamped to their range and set biases to 0, as published."""
        self.zero_biases_()
        for name, parameter in self.parameters.items():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter[0].numel())
                parameter.copy_(noise.clamp_(-self.bounds[name], self.bounds[name]))

    @torch.no_grad()
    def zero_biases_(self) -> None:
        """Set biases to 0 and leave the weights as the network has them, as published for mini-ImageNet."""
        for parameter in self.parameters.values():
            if parameter.dim() == 1:
                parameter.zero_()

    def attach(self, optimizer: "Optimizer") -> RemovableHandle:
        """Clamp after every step of `optimizer`; call `remove()` on what is returned to stop."""
        return optimizer.register_step_post_hook(lambda *_: self.clamp_())

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put every parameter back into its allowed range, in place."""
        for name, parameter in self.parameters.items():
            parameter.clamp_(*self._ranges[name])

    @torch.no_grad()
    def consolidate(self, fisher: Mapping[str, Tensor]) -> None:
        """Freeze what a finished task taught: grow bits, quantise, move anchors, average the Fisher information.

        `fisher` is the diagonal Fisher information of the task at the trained (not yet quantised) weights, keyed as
        `diagonal_fisher` returns it. Raises ValueError where it is missing, of another shape, negative or not finite.
        """
        for name, parameter in self.parameters.items():
            if name not in fisher or fisher[name].shape != parameter.shape:
                raise ValueError(f"fisher has no tensor of shape {tuple(parameter.shape)} for {name}")
            if not bool((torch.isfinite(fisher[name]) & (fisher[name] >= 0)).all()):
                raise ValueError(f"the Fisher information of {name} is negative or not finite")
        for name, parameter in self.parameters.items():
            running, bound = self.running_fisher[name], self.bounds[name]
            gain = q.information_gain(fisher[name], running, self.tasks)
            self.bits[name] = bits = q.grow_bits(self.bits[name], gain, self.max_bits)
            parameter.copy_(q.quantise(parameter, bits, bound))
            self._ranges[name] = q.allowed_range(parameter.detach(), bits, bound, self.max_bits)
            self.running_fisher[name] = q.update_running_fisher(fisher[name], running, self.tasks)
        self.tasks += 1

    def capacity(self) -> float:
        """Share of all bits that are frozen, Σk / (Q · number of parameters), in [0, 1]."""
        frozen = sum(int(bits.sum(dtype=torch.int64)) for bits in self.bits.values())
        return frozen / (self.max_bits * sum(bits.numel() for bits in self.bits.values()))

    def state_dict(self) -> dict[str, Any]:
        """Everything but the network's weights, as tensors and numbers."""
        ranges = {name: list(r) for name, r in self._ranges.items()} if self.tasks else {}
        return {
            "tasks": self.tasks,
            "bits": dict(self.bits),
            "running_fisher": dict(self.running_fisher),
            "ranges": ranges,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of another instance for the same network; copies nothing that is already in place."""
        if {name: b.shape for name, b in state["bits"].items()} != {n: p.shape for n, p in self.parameters.items()}:
            raise ValueError("the state belongs to a network with other layers")
        self.tasks = int(state["tasks"])
        self._ranges = self._first_ranges()
        for name, parameter in self.parameters.items():
            self.bits[name] = state["bits"][name].to(parameter.device)
            self.running_fisher[name] = state["running_fisher"][name].to(parameter.device)
            if self.tasks:
                low, high = state["ranges"][name]
                self._ranges[name] = (low.to(parameter.device), high.to(parameter.device))
