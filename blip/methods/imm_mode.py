"""Incremental moment matching, mode merging: average the old and the new network by how sure each is."""

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from blip.core.fisher import batch_gradient_fisher
from blip.core.penalties import QuadraticPenalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied
from blip.schema import Schema, later
from blip.seeding import address, generator


@register
class ModeIMM(Method):
    """Mode-IMM (Lee et al., 2017): L2-transfer while training, then θ ← (ΣF_old·θ_old + F·θ) / (ΣF_old + F).

    The published code computes this merge and drops the result; here it is carried out, unless `merge` is off. The next
    task starts from the merged weights and is pulled to them, where the paper keeps a chain of unmerged ones. A weight
    that no task's Fisher information says anything about keeps its new value, as do heads of one task.
    """

    name = "imm-mode"
    version = 3
    clip_norm = 1000.0
    remembered = ("fisher", "old")

    class Settings(Schema):
        strength: NonNegativeFloat = 0.01
        """λ of the L2-transfer term λ/2 · Σ(θ - θ_old)²."""
        fisher_batch_size: PositiveInt = 32
        """As for `ewc`."""
        merge: bool = later(True)
        """Off, as in the published code, L2-transfer is all that there is."""

    def __init__(self, network: MultiHeadNetwork, settings: "ModeIMM.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        self.fisher: dict[str, Tensor] = {}
        self.old: dict[str, Tensor] = {}
        """Weights before the task, of the features and of its own head."""
        self.trained: dict[str, nn.Parameter] = {}

    def before_task(self, task: int) -> None:
        self.trained = self.network.parameters_of(task)

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        if not self.old:
            return None
        return QuadraticPenalty(self.settings.strength, self.trained, self.old)

    def after_task(self, task: int, train: Examples) -> None:
        torch.manual_seed(address(self.seed, "fisher dropout", task))
        self.network.train()
        fisher = batch_gradient_fisher(
            self.network.shared,
            lambda x: self.network(x, task),
            self.batches(train, self.settings.fisher_batch_size, generator(self.seed, "fisher", task)),
        )
        if self.old:
            self._merge(fisher)
        else:
            self.fisher = fisher
        self.old = copied(self.network.parameters_of(task + 1))

    @torch.no_grad()
    def _merge(self, fisher: dict[str, Tensor]) -> None:
        for name, parameter in self.network.shared.named_parameters():
            total = self.fisher[name] + fisher[name]
            share = torch.where(total > 0, fisher[name] / total, 1.0)  # of the new weight
            old = self.old[name if self.network.one_head else f"features.{name}"]
            if self.settings.merge:
                parameter.copy_(old + share * (parameter - old))
            self.fisher[name] = total
