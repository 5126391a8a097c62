"""A network for each task: neither forgetting nor transfer."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from blip.methods.base import Method, register
from blip.networks import MultiHeadNetwork, copied, holding
from blip.schema import Schema


@register
class SingleTask(Method):
    """Every task on a network of its own: what tasks are worth without each other.

    Each starts from the same initial weights, and is tested with those that it ended with, which are all kept.
    """

    name = "single-task"
    moves_statistics = True
    remembered = ("initial", "learned", "begun")

    def __init__(self, network: MultiHeadNetwork, settings: Schema, seed: int) -> None:
        super().__init__(network, settings, seed)
        self.initial = copied(network.state_dict())
        self.learned: list[dict[str, Tensor]] = []
        self.begun = 0
        """The task that the network is of."""

    def before_task(self, task: int) -> None:
        if task != self.begun:  # and not merely resumed
            self.network.load_state_dict(self.initial)
            self.begun = task

    def after_task(self, task: int, *_: Any) -> None:
        self.learned.append(copied(self.network.state_dict()))

    def as_seen_by(self, task: int) -> AbstractContextManager[None]:
        return holding(self.network, self.learned[task]) if task < len(self.learned) else nullcontext()
