"""PackNet: each task gets weights of its own, which nothing moves afterwards."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from blip.data import Examples
from blip.errors import BlipError
from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied, holding
from blip.schema import Schema
from blip.seeding import address, generator

FREE = 255
"""The owner of a weight that no task has yet."""


@register
class PackNet(Method):
    """PackNet (Mallya and Lazebnik, 2018): train all free weights, keep the largest, retrain these; the rest is free.

    A task uses its own weights and those of earlier tasks, layer by layer; freed ones are 0 until the next task trains.
    The last task keeps all that are left. Biases and batch-norm's parameters are those of the first task, its running
    statistics each task's own.
    """

    name = "packnet"
    version = 2
    supervised = True
    moves_statistics = True
    remembered = ("owner", "statistics")

    class Settings(Schema):
        keep: float | None = Field(default=None, gt=0, le=1)
        """Share of a layer's free weights that a task keeps (the authors: 0.25 to 0.5). None: 1 / (the tasks left)."""
        retrain_epochs: NonNegativeInt = 5
        """Of plain SGD on the weights that are kept."""
        retrain_lr: PositiveFloat = 0.01
        """Its learning rate."""
        retrain_batch_size: PositiveInt = 32
        """Its batch size."""

    def __init__(self, network: MultiHeadNetwork, settings: "PackNet.Settings", seed: int) -> None:
        super().__init__(network, settings, seed)
        if len(network.outputs) > FREE:
            raise BlipError(f"methods.packnet: expected at most {FREE} tasks, found {len(network.outputs)}")
        self.weights = {name: weight for name, weight in network.weights.items() if weight.requires_grad}
        self.owner = {name: torch.full_like(p, FREE, dtype=torch.uint8) for name, p in self.weights.items()}
        """The task that each weight belongs to."""
        self.statistics: list[dict[str, Tensor]] = []  # batch-norm's, of each task that is learned
        self.trainable: dict[str, Tensor] = {}  # 1 where a weight may move, else 0

    def before_task(self, task: int) -> None:
        if task:
            self.network.train_weights_alone()
        self._let_train(FREE)

    def _let_train(self, owner: int) -> None:
        self.trainable = {name: (owners == owner).to(self.weights[name]) for name, owners in self.owner.items()}

    @torch.no_grad()
    def before_step(self) -> None:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad *= self.trainable[name]

    def after_task(self, task: int, train: Examples) -> None:
        tasks_left = len(self.network.outputs) - task
        keep = (self.settings.keep or 1 / tasks_left) if tasks_left > 1 else 1.0
        for name, weight in self.weights.items():
            free = self.owner[name] == FREE
            kept = largest(weight.detach(), free, keep)
            self.owner[name][kept] = task
            weight.data[free & ~kept] = 0
        if keep < 1:
            self._retrain(task, train)
        self.statistics.append(copied(dict(self.network.shared.named_buffers())))

    def _retrain(self, task: int, train: Examples) -> None:
        settings, network = self.settings, self.network
        self._let_train(task)
        parameters = [p for p in network.parameters_of(task).values() if p.requires_grad]
        network.train()
        for epoch in range(settings.retrain_epochs):
            torch.manual_seed(address(self.seed, "retraining dropout", task, epoch))
            shuffle = generator(self.seed, "retraining", task, epoch)
            for x, labels in self.batches(train, settings.retrain_batch_size, shuffle):
                network.zero_grad()
                F.cross_entropy(network(x, task), labels).backward()  # type: ignore[no-untyped-call]
                self.before_step()
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.data.sub_(parameter.grad, alpha=settings.retrain_lr)
        network.zero_grad()
        parts = self.batches(train, settings.retrain_batch_size, generator(self.seed, "statistics", task))
        network.measure_statistics(x for x, _ in parts)

    def as_seen_by(self, task: int) -> AbstractContextManager[None]:
        if task >= len(self.statistics):  # the present one, which uses all
            return nullcontext()
        own = {f"{name}.weight": weight * (self.owner[name] <= task) for name, weight in self.weights.items()}
        return holding(self.network.shared, own | self.statistics[task])


def largest(weight: Tensor, free: Tensor, share: float) -> Tensor:
    """Where the `share` of the `free` weights lies that is largest by magnitude; a layer's last one is never left."""
    magnitude = torch.where(free, weight.abs(), -1.0).flatten()
    count = max(round(share * int(free.sum())), min(1, int(free.sum())))
    kept = torch.zeros_like(free).flatten()
    kept[magnitude.topk(count).indices] = True
    return kept.view_as(free)
