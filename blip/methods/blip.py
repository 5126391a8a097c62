"""Bit-level information preserving: the paper's method."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from blip.core.checks import DegenerateError
from blip.core.fisher import diagonal_fisher
from blip.core.formulas import anchor_moves
from blip.core.freezing import BLIP
from blip.data import Examples
from blip.data.sequences import of_several
from blip.errors import DivergedError
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.record import BOUND, COUNT, FROZEN_BITS, INDEX, NUMBER, TEXT, Table
from blip.schema import Schema
from blip.seeding import generator

BITS = Table(
    name="bits",
    about="How many parameters of each layer have how many frozen bits, of at most max_bits.",
    columns={"task_learned": INDEX, "layer": TEXT, "frozen_bits": COUNT, "parameters": COUNT, "max_bits": COUNT},
)
TRACE = Table(
    name="trace",
    about="Values of some weights, which lie in ± bound, and their frozen bits.",
    columns={
        "task_learned": INDEX,
        "layer": TEXT,
        "index": INDEX,
        "value": NUMBER,
        "bound": NUMBER,
        "frozen_bits": COUNT,
        "max_bits": COUNT,
    },
)
MOVES = Table(
    name="moves",
    about="Largest move of an anchor in each layer when a task was consolidated, in units of the one that is allowed, "
    "B·2^-k of the k before; and how many parameters lost frozen bits, which none may.",
    columns={"task_learned": INDEX, "layer": TEXT, "largest_move": NUMBER, "lost_bits": COUNT},
)
TRACED = 16
"""Weights per layer whose values and frozen bits are recorded after each task, to be looked at."""


@register
class BitPreserving(Method):
    """BLIP (Shi et al., CVPR 2021): after each task freeze the bits that carry information about it."""

    name = "blip"
    version = 3
    tables = (BITS, TRACE, MOVES)

    class Settings(Schema):
        f_prior: PositiveFloat
        """F_prior of the paper; it belongs to the `fisher_batch_size` beside it."""
        fisher_batch_size: PositiveInt = 100
        """N: the estimate takes gradients of the mean loss of so many images."""
        fisher_batches: PositiveInt = 80
        """At most so many times N images of a task are used."""
        labels: Literal["sampled", "exact"] = "sampled"
        """Of the Fisher estimate: one sampled for each image as published, or the exact expectation over classes."""
        max_classes: PositiveInt = 10
        """Most classes that `exact` goes through, a backward pass each; one of the others is sampled."""
        max_bits: int = Field(default=20, ge=1, le=24)
        """Q, the most frozen bits of a parameter."""
        weight_range: PositiveFloat = 6.0
        """Weights lie in ± this / √n."""
        n: Literal["fan-in", "max-fan-in-outputs"] = "fan-in"
        """Of a layer, in the range of its weights and in its prior. `max-fan-in-outputs`, published for games, is the
        larger of fan-in and number of output units (of a convolution out_channels, without its kernel)."""
        initialisation: Literal["normal", "zero-biases", "network"] = "normal"
        """`normal`: weights from N(0, 1/fan-in) clamped to their range and biases 0. `zero-biases`: the network's own
        weights and biases 0 (published for mini-ImageNet). `network`: as the network comes (for games, where its biases
        are 0)."""

    def __init__(self, network: MultiHeadNetwork, settings: "BitPreserving.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.expect_choices()
        self.blip = BLIP(
            network.shared,
            settings.f_prior,
            max_bits=settings.max_bits,
            weight_range=settings.weight_range,
            n=settings.n,
        )
        if settings.initialisation == "normal":
            self.blip.initialise_(generator(seed, "blip initialisation"))
        elif settings.initialisation == "zero-biases":
            self.blip.zero_biases_()
        self.blip.clamp_()
        self._anchors: dict[str, Tensor] = {}
        """While a task trains, those of before it, by which its moves are measured."""
        self._moves: list[dict[str, Any]] = []

    def before_task(self, task: int) -> None:
        # Copies of the weights, and of no range that training is given: what is measured is whether that was kept.
        if not self._anchors:  # nor of weights that a resumed task has moved already
            self._anchors = {
                name: anchor.clone() if self.blip.tasks else torch.zeros_like(anchor)
                for name, anchor in self.blip.anchors().items()
            }

    def after_step(self) -> None:
        self.blip.clamp_()

    def after_task(self, task: int, train: Examples) -> None:
        settings = self.settings
        used = settings.fisher_batches * settings.fisher_batch_size
        index = train.sample(used, generator(self.seed, "fisher", task))
        # Where batches normalise themselves their size makes a difference, so it is not what suits the device.
        together = self.network.batch_statistics
        parts = of_several(index, settings.fisher_batch_size) if together else torch.split(index, train.batch_size)
        fisher = diagonal_fisher(
            self.network.shared,
            lambda x: self.network(x, task),
            (train.batch(part)[0] for part in parts),
            loss_batch_size=settings.fisher_batch_size,
            labels=settings.labels,
            max_classes=settings.max_classes,
            batch_statistics=True,
            generator=generator(self.seed, "fisher labels", task, device=train.labels.device),
        )
        bits = dict(self.blip.bits)
        try:
            self.blip.consolidate(fisher)
        except DegenerateError as error:
            raise DivergedError(
                f"task {task}: {error}; expected a network that learns: try a smaller methods.blip.f_prior (now "
                f"{settings.f_prior:g}), which freezes more, or a lower learning rate"
            ) from None
        self._moves, self._anchors = self._moved(self._anchors, bits), {}

    def _moved(self, before: Mapping[str, Tensor], bits: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Rows of MOVES, from the anchors and bits of before consolidation."""
        now, anchors = self.blip.bits, self.blip.anchors()
        moves = {
            name: anchor_moves(before[name], bits[name], anchors[name], now[name], self.blip.bounds[name])
            for name in now
        }
        return [
            {"layer": name, "largest_move": float(move.max()), "lost_bits": int((now[name] < bits[name]).sum())}
            for name, move in moves.items()
        ]

    def measurements(self) -> dict[str, list[dict[str, Any]]]:
        bits_rows, trace_rows = [], []
        Q = self.blip.max_bits
        for name, bits in self.blip.bits.items():
            counts = torch.bincount(bits.flatten(), minlength=Q + 1).tolist()
            bits_rows += [
                {"layer": name, "frozen_bits": k, "parameters": n, "max_bits": Q} for k, n in enumerate(counts) if n
            ]
            if name.endswith("bias"):
                continue
            weight = self.blip.parameters[name].detach()
            shuffled = torch.randperm(weight.numel(), generator=generator(self.seed, "trace"))
            for index in sorted(shuffled[:TRACED].tolist()):
                trace_rows.append(
                    {
                        "layer": name,
                        "index": index,
                        "value": float(weight.flatten()[index]),
                        "bound": self.blip.bounds[name],
                        "frozen_bits": int(bits.flatten()[index]),
                        "max_bits": Q,
                    }
                )
        return {BITS.name: bits_rows, TRACE.name: trace_rows, MOVES.name: self._moves}

    def beside_weights(self) -> dict[str, Tensor]:
        prefix = "" if self.network.one_head else "features."
        bits = {f"{FROZEN_BITS}{prefix}{name}": bits for name, bits in self.blip.bits.items()}
        bounds = self.blip.bounds.items()
        return bits | {f"{BOUND}{prefix}{name}": torch.tensor(b, dtype=torch.float64) for name, b in bounds}

    def in_words(self) -> str:
        return f"{self.blip.capacity():.1%} of all bits frozen"

    def state_dict(self) -> dict[str, Any]:
        return self.blip.state_dict() | {"anchors": self._anchors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._anchors = state["anchors"]
        self.blip.load_state_dict(state)
