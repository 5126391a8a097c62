"""Hard attention to the task: each task learns which units it uses, and later ones leave what these compute alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from blip.core.layers import along, named_layers
from blip.data import Examples
from blip.errors import BlipError
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied
from blip.schema import Schema
from blip.seeding import generator


@register
class HAT(Method):
    """HAT (Serrà et al., 2018): units are multiplied by gates a = σ(s·e), s rising in each epoch to s_max (Eq. 1, 3).

    A weight's gradient is multiplied by 1 - min(a_out, a_in) of earlier tasks' largest gates (Eq. 2; a_in is 1 where
    layers are not in a row), that of e by what the steep σ took (Eq. 5); the loss has λ · the share used (Eq. 6).
    """

    name = "hat"
    version = 2
    clip_norm = 10_000.0
    supervised = True
    moves_statistics = True
    remembered = ("gates", "begun")

    class Settings(Schema):
        strength: NonNegativeFloat = 0.75
        """λ"""
        s_max: float = Field(default=400.0, gt=1)
        """Slope of the gates when a task has been learned; it grows from 1 / s_max to this in each epoch."""

    def __init__(self, network: MultiHeadNetwork, settings: "HAT.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.layers, self.norms = named_layers(network.features), network.norms
        if network.one_head and not network.in_a_row:
            raise BlipError("methods.hat: expected a head for each task, or a network whose layers are simply in a row")
        self.e = {name: nn.Parameter(p.weight.new_zeros(len(p.weight))) for name, p in self.layers.items()}
        """Embeddings of the present task. In the network, so that they are trained and restored with it."""
        network.embeddings = nn.ParameterDict({f"of {name}".replace(".", "_"): e for name, e in self.e.items()})
        for name, layer in self.layers.items():
            gated: Any = self.norms.get(layer, layer)
            units = -1 if isinstance(gated, nn.Linear) else 1
            gated.register_forward_hook(lambda _, inputs, y, n=name, d=units: y * along(self.gate(n), y, d))
        self.expect_all_known([*network.embeddings.parameters(), *(p for p, _ in self._movable({}))])
        self.gates: list[dict[str, Tensor]] = []  # of each task learned, and its running statistics
        self.begun, self.seen = -1, -1
        """The task that the embeddings are of, and the learned one whose gates are to be used (-1: none)."""
        self.s, self.rise = (next(network.parameters()).new_tensor(x) for x in (1 / settings.s_max, 0.0))

    def gate(self, name: str) -> Tensor:
        """Of a layer's units (n,), as training or testing uses them."""
        slope = self.s if self.network.training else self.settings.s_max
        return self.gates[self.seen][name] if self.seen >= 0 else torch.sigmoid(self.e[name] * slope)

    def before_task(self, task: int) -> None:
        if self.begun != task:  # and not merely resumed
            random, self.begun = generator(self.seed, "gates", task), task
            for e in self.e.values():
                e.data.copy_(torch.randn(e.shape, generator=random))
        used = {n: torch.stack([torch.zeros_like(e), *(g[n] for g in self.gates)]).amax(0) for n, e in self.e.items()}
        self.free = 1 - torch.cat(list(used.values()))
        self.movable = list(self._movable(used)) if self.gates else []

    def _movable(self, used: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """What the tasks share, and what its gradients are multiplied by; `used`: earlier tasks' largest gates."""
        a_in: Tensor | None = None
        for name, layer in named_layers(self.network.shared).items():
            a_out = used.get(name.removeprefix("features."), layer.weight.new_ones(len(layer.weight)))
            kept = along(a_out, layer.weight, 0)
            if a_in is not None and self.network.in_a_row:
                a_in = a_in.repeat_interleave(layer.weight.shape[1] // len(a_in))  # each channel's positions
                kept = torch.minimum(kept, along(a_in, layer.weight, 1))
            yield layer.weight, 1 - kept
            norm, a_in = self.norms.get(layer), a_out
            yield from ((p, 1 - a_out) for p in (layer.bias, *(norm.parameters() if norm else ())) if p is not None)

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        gates = torch.cat([self.gate(name) for name in self.layers])
        penalty: Tensor = self.settings.strength * (gates * self.free).sum() / self.free.sum().clamp(min=1)
        return penalty

    def before_epoch(self, batches: int) -> None:
        self.s.fill_(1 / self.settings.s_max)
        self.rise.fill_((self.settings.s_max - 1 / self.settings.s_max) / batches)

    @torch.no_grad()
    def before_step(self) -> None:
        for parameter, movable in self.movable:
            if parameter.grad is not None:
                parameter.grad *= movable
        for e in self.e.values():
            steepness = ((self.s * e).clamp(-50, 50).cosh() + 1) / (e.cosh() + 1)
            e.grad = e.grad * steepness * self.settings.s_max / self.s if e.grad is not None else None

    def after_step(self) -> None:
        for e in self.e.values():
            e.data.clamp_(-6, 6)
        self.s += self.rise

    def after_task(self, task: int, train: Examples) -> None:
        self.network.eval()
        self.gates.append({name: self.gate(name).detach() for name in self.layers} | copied(self.network.statistics))

    @contextmanager
    def as_seen_by(self, task: int) -> Iterator[None]:
        self.seen = task if task < len(self.gates) else -1
        try:
            with self.network.normalised_by(self.gates[task] if self.seen >= 0 else {}):
                yield
        finally:
            self.seen = -1
