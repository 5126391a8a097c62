"""Elastic weight consolidation: a spring on every weight, as stiff as the weight is important."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from blip.core.fisher import batch_gradient_fisher, diagonal_fisher
from blip.core.penalties import QuadraticPenalty
from blip.data import Examples
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork
from blip.schema import Schema
from blip.seeding import address, generator


@register
class EWC(Method):
    """EWC (Kirkpatrick et al., 2017): penalty λ/2 · Σ F (θ - θ*)², F averaged or summed over the tasks so far.

    Over all parameters, as published: but the Fisher information of a head is zero until its task, and after it the
    head never moves, so heads add nothing and are left out (but for one that all tasks share). Offline, each task has a
    penalty of its own, around the weights that it ended with. Their sum is kept as one, with the sum of the F and, for
    θ*, the mean of those weights weighted by F: the same but for a number that no gradient sees, and no larger with
    every task.
    """

    name = "ewc"
    version = 3
    clip_norm = 100.0
    remembered = ("fisher", "anchor")

    class Settings(Schema):
        strength: NonNegativeFloat = 5000.0
        """λ"""
        fisher_batch_size: PositiveInt = 32
        """The published Fisher squares batch gradients, so λ belongs to a batch size: that of training."""
        fisher_batches: PositiveInt | None = None
        """At most so many; all of the task's data where left out. `one per class` is one batch in any case."""
        fisher: Literal["batch gradients", "sampled", "exact", "empirical", "one per class"] = "batch gradients"
        """`sampled`: for labels drawn from the prediction. What is published for games, squared
        gradients of batches of n such labels, is the Fisher information proper / n in the mean: here it is computed.
        `exact`: the same in expectation over labels. `one per class`: that of a single image of each class.
        `empirical`: of each image's own label. All of them / n, 20 times less than published `batch gradients`."""
        over_tasks: Literal["mean", "sum"] = "mean"
        """`sum` with `sampled` is published for games."""
        form: Literal["online", "offline"] = "online"
        """`online`: θ* is the weights after the last task. `offline`: each task's penalty keeps its own θ*."""

    def __init__(self, network: MultiHeadNetwork, settings: "EWC.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        if settings.fisher != "batch gradients":
            self.expect_choices()
        self.parameters = dict(network.shared.named_parameters())
        self.fisher: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        if not self.anchor:
            return None
        return QuadraticPenalty(self.settings.strength, self.parameters, self.anchor, self.fisher)

    def after_task(self, task: int, train: Examples) -> None:
        batch = self.settings.fisher == "batch gradients"
        new = self._batch_gradients(task, train) if batch else self._squares_of_samples(task, train)
        tasks = 1 if self.settings.over_tasks == "sum" else task + 1
        weights = {name: self.parameters[name].detach().clone() for name in new}
        if not self.anchor:
            self.fisher, self.anchor = new, weights
            return
        for name, value in new.items():
            old = self.fisher[name] if tasks == 1 else task * self.fisher[name]
            self.fisher[name] = (value + old) / tasks
            if self.settings.form == "offline":
                share = torch.where(value + old > 0, value / (value + old), 1.0)
                weights[name] = self.anchor[name] + share * (weights[name] - self.anchor[name])
        self.anchor = weights

    def _batches(self, task: int, train: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self.batches(train, self.settings.fisher_batch_size, generator(self.seed, "fisher", task))
        return islice(batches, self.settings.fisher_batches)

    def _batch_gradients(self, task: int, train: Examples) -> dict[str, Tensor]:
        torch.manual_seed(address(self.seed, "fisher dropout", task))
        self.network.train()
        return batch_gradient_fisher(
            self.network.shared,
            lambda x: self.network(x, task),
            self._batches(task, train),
        )

    def _squares_of_samples(self, task: int, train: Examples) -> dict[str, Tensor]:
        kind = self.settings.fisher
        batches = self._one_per_class(task, train) if kind == "one per class" else self._batches(task, train)
        fisher = diagonal_fisher(
            self.network.shared,
            lambda x: self.network(x, task),
            batches if kind == "empirical" else (x for x, _ in batches),
            labels="sampled" if kind == "sampled" else "exact",
            max_classes=max(self.network.outputs),
            batch_statistics=True,
            generator=generator(self.seed, "fisher labels", task, device=train.labels.device),
        )
        return {name: value / self.settings.fisher_batch_size for name, value in fisher.items()}

    def _one_per_class(self, task: int, train: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        order = train.sample(len(train), generator(self.seed, "fisher", task))
        labels = train.labels[order]
        first = (labels == torch.unique(labels)[:, None]).int().argmax(1)
        yield train.batch(order[first])
