"""BLIP for any network and any optimizer: freeze bits after a task, keep them frozen while training."""

import math
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from blip.core import checks
from blip.core import formulas as q
from blip.core.layers import (
    Covered,
    UnprotectedWarning,
    check_names,
    layer_parameters,
    other_parameters,
    running_statistics,
)

if TYPE_CHECKING:
    from torch.optim import Optimizer


class BLIP:
    """Bit-level information preserving for `features`: linear layers, convolutions, embeddings, affine norms.

    Parameters that do not train (`requires_grad` off when this is built) are left alone. Those that train and belong to
    no layer that is covered are not protected: a warning names them (`UnprotectedWarning`). Another names the running
    statistics of norms that a further task changed, when it is consolidated.

    After t tasks, with quantised values ("anchors") a and k frozen bits:

    * while the next task trains, every parameter stays in [a - B·2^-k, a + B·2^-k] ∩ [-B(1 - 2^-Q), B(1 - 2^-Q)];
    * the next consolidation never lowers k and moves the anchor by at most B·2^-k (of the k before it).

    So a parameter with k = Q = 20 frozen bits moves by at most a millionth of its range in a task, and one with k = 0
    is free. That is exactly what the published rule promises: the leading k bits are kept up to one unit in the last
    place per task, not as a bit pattern (0.0111… may become 0.1000…).

    State: per parameter its lowest and highest value (float32), running Fisher information (float32) and frozen bits
    (uint8), 13 bytes, however many tasks there have been; 4 more for norms' weights and parametrised ones, whose range
    lies around the value that they have here, not around 0. Build it after moving the network to its device. Parameters
    are float32 or float64: half precision cannot hold what is promised (train under `torch.autocast` instead).

    Args:
        features: the shared part of the network; heads stay outside.
        f_prior: the prior's Fisher information is this times n. It belongs to the `loss_batch_size` of the Fisher
            estimate.
        max_bits: Q, the most bits that can be frozen.
        weight_range: weights lie in ±`weight_range`/√n.
        bias_range: biases lie in ±`bias_range`.
        n: the layer's size in ranges and prior: its fan-in, or, published for games, the larger of fan-in and number
            of output units (of a convolution max(out_channels, in_channels·k·k)). 1 for norms and embeddings.
        unprotected: names of parameters or modules in `features` that are meant to train without protection.
        strict: raise ValueError where the warning would be.
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
        unprotected: Collection[str] = (),
        strict: bool = False,
    ) -> None:
        if n not in ("fan-in", "max-fan-in-outputs"):
            raise ValueError(f"n: expected 'fan-in' or 'max-fan-in-outputs', found {n!r}")
        numbers = (f_prior, weight_range, bias_range, max_bits)
        possible = all(v is not None and not isinstance(v, str) and 0 < v < math.inf for v in numbers)
        if not possible or max_bits not in range(1, 25):
            raise ValueError("f_prior and ranges must be positive and finite, max_bits whole and between 1 and 24")
        self.max_bits = max_bits
        self.tasks = 0
        self.parameters: dict[str, nn.Parameter] = {}
        self.bounds: dict[str, float] = {}
        self.running_fisher: dict[str, Tensor] = {}
        self.bits: dict[str, Tensor] = {}
        self.centres: dict[str, Tensor] = {}
        """Where the ranges of those parameters lie whose rest is not at 0."""
        self.unprotected = check_names(features, unprotected)
        self._features = features
        self._covered = layer_parameters(features, self.unprotected)
        for name, covered in self._covered.items():
            self._add(name, covered, f_prior, n, bias_range if covered.is_bias else weight_range)
        if not self.parameters:
            raise ValueError("features has no layer that trains and is covered, such as nn.Linear or nn.Conv1d/2d/3d")
        self._others = other_parameters(features, self.unprotected)
        self._strict = strict
        if self._others:
            self._say(f"BLIP does not protect {', '.join(self._others)}: freeze them, or name them in `unprotected`", 3)
        self._ranges = self._first_ranges()
        self._statistics: dict[str, Tensor] = {}
        """Running statistics of norms after the last task."""
        self._attached: set[int] = set()
        """What optimizers train that clamp."""

    def _say(self, unprotected: str, stacklevel: int) -> None:
        if self._strict:
            raise ValueError(unprotected)
        warnings.warn(unprotected, UnprotectedWarning, stacklevel=stacklevel)

    def _add(
        self, name: str, covered: Covered, f_prior: float, n: Literal["fan-in", "max-fan-in-outputs"], reach: float
    ) -> None:
        """Start the books of one parameter; `reach` is the range of its kind, for n = 1."""
        parameter = covered.parameter
        size = covered.size(n)
        checks.check_precision(name, parameter)
        checks.check_prior(name, f_prior * size)
        self.parameters[name] = parameter
        self.bounds[name] = reach if covered.is_bias else reach / math.sqrt(size)
        self.running_fisher[name] = torch.full_like(parameter, f_prior * size, dtype=torch.float32)
        self.bits[name] = torch.zeros_like(parameter, dtype=torch.uint8)
        if not covered.rests_at_zero:
            self.centres[name] = parameter.detach().to(torch.float32, copy=True)

    def _first_ranges(self) -> dict[str, tuple[Tensor, Tensor] | tuple[float, float]]:
        # Before the first consolidation every parameter of a tensor has one range: two numbers do, and a clamp by
        # numbers reads no further memory.
        limits = {name: q.range_limit(bound, self.max_bits) for name, bound in self.bounds.items()}
        return {
            name: (centre - limits[name], centre + limits[name])
            if (centre := self.centres.get(name)) is not None
            else (-limits[name], limits[name])
            for name in limits
        }

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator | None = None) -> None:
        """Draw weights from N(0, 1/fan-in) clamped to their range and set biases to 0, as published.

        Norms' and parametrised weights return to where they were when this was built; padding rows become 0.
        """
        self.zero_biases_()
        for name, covered in self._covered.items():
            parameter = covered.parameter
            if name in self.centres:
                parameter.copy_(self.centres[name])
            elif not covered.is_bias:
                noise = torch.randn(parameter.shape, generator=generator) / math.sqrt(covered.size())
                parameter.copy_(noise.clamp_(-self.bounds[name], self.bounds[name]))
                padding = getattr(covered.uses[0][0], "padding_idx", None)
                if padding is not None:
                    parameter[padding] = 0

    @torch.no_grad()
    def zero_biases_(self) -> None:
        """Set biases to 0 and leave the weights as the network has them, as published for mini-ImageNet."""
        for name, covered in self._covered.items():
            if covered.is_bias and name not in self.centres:
                covered.parameter.zero_()

    def attach(self, optimizer: "Optimizer") -> RemovableHandle:
        """Clamp after every step of `optimizer`; call `remove()` on what is returned to stop.

        Weights outside of their range, as of a network that was trained elsewhere, are cut there by the first step.
        Raises ValueError where the optimizer has none of the parameters.
        """
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in trained for parameter in self.parameters.values()):
            raise ValueError(
                "optimizer: expected one of the network that BLIP was built with, it has none of its parameters"
            )
        self._attached |= trained
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
        `diagonal_fisher` returns it. Raises ValueError, and changes nothing, where it is missing, of another shape,
        negative, not finite, zero everywhere or too large for float32; where weights are not finite or outside of their
        range; and where the network's parameters are others than when this was built. Warns, or with `strict` raises,
        where no bit at all is frozen, which undoes what was learned; where running statistics of norms changed since
        the last task, and with them what earlier ones are answered; and of parameters that no attached optimizer
        trains: they are quantised too.
        """
        checks.check_same_parameters(self._features, self.parameters, self._others, self.unprotected)
        checks.check_fisher(fisher, self.parameters)
        checks.check_weights(self.parameters, self._ranges, self.bounds, self.max_bits)
        statistics = running_statistics(self._features, self.unprotected)
        self._check_statistics(statistics)
        self._check_trained()
        new = {}
        for name, running in self.running_fisher.items():
            task = fisher[name].to(running)
            gain = q.information_gain(task, running, self.tasks)
            average = q.update_running_fisher(task, running, self.tasks)
            checks.check_average(name, gain, average)
            new[name] = q.grow_bits(self.bits[name], gain, self.max_bits), average
        if not any(bits.any() for bits, _ in new.values()):
            self._say(
                "BLIP freezes no bit of this task, so all parameters return to their middle: a smaller f_prior freezes "
                "more, and so does training that ends before the network is sure of every label",
                stacklevel=4,
            )
        for name, (bits, average) in new.items():
            self.bits[name], self.running_fisher[name] = bits, average
            self._freeze(name)
        self.tasks += 1
        self._statistics = statistics

    def _check_statistics(self, now: Mapping[str, Tensor]) -> None:
        # A loaded state may be of another device.
        known = {name: old.to(now[name].device) for name, old in self._statistics.items() if name in now}
        if moved := [name for name, old in known.items() if not old.equal(now[name])]:
            self._say(
                f"BLIP does not protect {', '.join(moved)}, which this task changed: call eval() of these norms in "
                "training after the first task, or name them in `unprotected`",
                stacklevel=5,  # of `consolidate`, which grad mode wraps
            )

    def _check_trained(self) -> None:
        if self.tasks or not self._attached:
            return
        if idle := [name for name, p in self.parameters.items() if id(p) not in self._attached]:
            self._say(
                f"BLIP quantises {', '.join(idle)}, which no attached optimizer trains: turn requires_grad off before "
                "BLIP is built, or name them in `unprotected`",
                stacklevel=5,
            )

    def _freeze(self, name: str) -> None:
        """Quantise a parameter to the bits that it has, and keep it there."""
        parameter, bits, bound = self.parameters[name], self.bits[name], self.bounds[name]
        centre = self.centres.get(name)
        if centre is None:
            parameter.copy_(q.quantise(parameter, bits, bound))
            low, high = q.allowed_range(parameter.detach(), bits, bound, self.max_bits)
        else:
            anchor = q.quantise(parameter - centre, bits, bound)
            parameter.copy_(centre + anchor)
            low, high = (centre + end for end in q.allowed_range(anchor, bits, bound, self.max_bits))
        self._ranges[name] = (low.float(), high.float())

    def anchors(self) -> dict[str, Tensor]:
        """The parameters relative to `centres`; right after consolidation, whole multiples of B·2^-k."""
        return {
            name: p.detach() - self.centres[name] if name in self.centres else p.detach()
            for name, p in self.parameters.items()
        }

    def capacity(self) -> float:
        """Share of all bits that are frozen, Σk / (Q · number of parameters), in [0, 1]."""
        frozen = sum(int(bits.sum(dtype=torch.int64)) for bits in self.bits.values())
        return frozen / (self.max_bits * sum(bits.numel() for bits in self.bits.values()))

    def state_dict(self) -> dict[str, Any]:
        """Everything but the network's weights, as tensors and numbers."""
        ranges = {name: list(r) for name, r in self._ranges.items()} if self.tasks else {}
        state = {
            "tasks": self.tasks,
            "bits": dict(self.bits),
            "running_fisher": dict(self.running_fisher),
            "ranges": ranges,
            "max_bits": self.max_bits,
            "bounds": dict(self.bounds),
        }
        more = {"centres": dict(self.centres), "statistics": dict(self._statistics)}
        return state | {key: tensors for key, tensors in more.items() if tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of another instance for the same network; copies nothing that is already in place.

        Raises ValueError, and changes nothing, where it is incomplete, of another network, or impossible.
        """
        checks.check_state(state, self._covered, self.bounds, self.max_bits)
        place = {name: parameter.device for name, parameter in self.parameters.items()}
        self.tasks = state["tasks"]
        self.centres = {name: centre.to(place[name]) for name, centre in state.get("centres", {}).items()}
        self._statistics = dict(state.get("statistics", {}))
        self.bits = {name: state["bits"][name].to(place[name]) for name in place}
        self.running_fisher = {name: state["running_fisher"][name].to(place[name]) for name in place}
        self._ranges = self._first_ranges()
        for name, (low, high) in state["ranges"].items():
            self._ranges[name] = (low.to(place[name]), high.to(place[name]))
