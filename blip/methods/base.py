"""What a method is: a few hooks around anybody's training loop."""

import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from blip.core.penalties import QuadraticPenalty
from blip.data import Examples, Task, TaskSequence
from blip.errors import BlipError
from blip.networks import MultiHeadNetwork
from blip.record import Table
from blip.schema import NAME, Schema

METHODS: dict[str, type["Method"]] = {}
"""All registered methods by name."""

M = TypeVar("M", bound=type["Method"])


def register(method: M) -> M:
    """Class decorator: make a method known by its name.

    Raises BlipError for a name that is none or another's, and where the class lacks what it must say of itself.
    """
    where, name = f"{method.__module__}.{method.__qualname__}", getattr(method, "name", None)
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise BlipError(f"{where}: name: expected letters, digits, -, _ and ., found {name!r}")
    known = METHODS.get(name, method)
    if (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        raise BlipError(f"{where}: name: {name} is that of {known.__module__}.{known.__qualname__}, expected another")
    if not (method.__doc__ or "").strip() and sys.flags.optimize < 2:  # which leaves out all docstrings
        raise BlipError(f"{where}: expected a docstring, whose first line `blip methods` prints")
    if isinstance(method.remembered, str):
        raise BlipError(f"{where}: remembered: expected a tuple of names, such as ({method.remembered!r},)")
    for attribute in _public(method) - (hooks := _public(Method)):
        if meant := get_close_matches(attribute, hooks, n=1, cutoff=0.8):
            raise BlipError(f"{where}: {attribute}: expected {meant[0]}, which is called, or a name unlike it")
    for table in method.tables:
        if next(iter(table.columns), "") != "task_learned":
            raise BlipError(f"{where}: tables: {table.name}: expected task_learned as the first column")
    METHODS[name] = method
    return method


def _public(kind: type) -> set[str]:
    """The functions of a class itself, by names without an underscore at the front."""
    return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}


KEPT = (int, float, bool, complex, str, bytes, type(None), torch.device, torch.dtype, torch.Size)
"""What a checkpoint gives back as it was, beside tensors; no subclasses of them, such as numpy's float64."""


def _not_kept(value: Any) -> str | None:
    """The type of what in a nested value cannot be loaded back without running code; None where there is none."""
    if type(value) in (dict, OrderedDict, Counter):
        value = [*value.keys(), *value.values()]
    if type(value) in (list, tuple, set):
        return next((kind for part in value if (kind := _not_kept(part)) is not None), None)
    return None if isinstance(value, Tensor) or type(value) in KEPT else type(value).__name__


class Method:
    """Hooks that the training loop calls. As they stand they do nothing: plain fine-tuning.

    A method gets the whole network once and keeps what it needs between tasks as attributes, which it names in
    `remembered`, so that a killed run can go on. `before_task` is called again on resuming.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Part of every run's configuration: raise it when new code changes the numbers, and the runs are redone."""
    clip_norm: ClassVar[float | None] = None
    """Largest norm of the gradient over all parameters; larger ones are scaled down before the step. In games PPO's."""

    cuda_graphs: ClassVar[bool] = True
    """Whether `penalty`, `before_step` and `after_step` may be recorded as a CUDA graph: they never wait
    for the device (`.item()`, `if` on a tensor), and the tensors that they read stay the same ones while a task trains.
    """

    supervised: ClassVar[bool] = False
    """Whether its tasks must be sets of labelled examples: it goes over them by itself, counts epochs, or relies on
    plain gradient descent."""

    moves_statistics: ClassVar[bool] = False
    """Whether running statistics of batch-norm go on moving after the first task: it gives each task its own, or has
    nothing to forget."""

    remembered: ClassVar[tuple[str, ...]] = ()
    """Attributes that checkpoints hold: nested dicts and lists of tensors, numbers and strings."""

    tables: ClassVar[tuple[Table, ...]] = ()
    """What the method measures of itself after each task; the first column is `task_learned`."""

    class Settings(Schema):
        """The method's hyper-parameters."""

    def __init__(self, network: MultiHeadNetwork, settings: Any, seed: int) -> None:
        """Raises BlipError where a batch is to be of one example and the network normalises by its batch."""
        single = [key for key, value in settings if key.endswith("batch_size") and value == 1]
        if network.batch_statistics and single:
            raise BlipError(f"methods.{self.name}.{single[0]}: expected at least 2 where batches normalise themselves")
        self.network = network
        self.settings = settings
        self.seed = seed

    def data_for(self, task: int, sequence: TaskSequence) -> Task:
        """What is trained and validated on as task `task` (0-based); where there are no images, nothing is trained."""
        return sequence.task(task)

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """What a task moves, asked for once before it trains; those with `requires_grad` off stay. Not asked for in
        games, where it is the features, and the game's own head and critic."""
        return self.network.parameters()

    def before_task(self, task: int) -> None:
        """Called before task `task` trains, and again when a run resumes within it."""

    def penalty(self, inputs: Tensor, hidden: Tensor) -> Tensor | None:
        """A term of the loss (a number) beside the cross-entropy, or None.

        `inputs` is the batch, `hidden` = `network.features(inputs)`. Called in training and validation alike.
        """
        return None

    def quadratic_penalty(self) -> QuadraticPenalty | None:
        """A penalty of the weights alone, beside `penalty`, or None. The loop adds its gradient after `before_step`."""
        return None

    def before_epoch(self, batches: int) -> None:
        """Called before each epoch of so many batches, where a task is a set of labelled examples."""

    def before_step(self) -> None:
        """Called with the loss's gradients in place, still without those of `quadratic_penalty`, before they are
        clipped and used; it may change them."""

    def after_step(self) -> None:
        """Called after every optimizer step."""

    def after_task(self, task: int, train: Examples) -> None:
        """Called once a task has trained and its best weights are back in place."""

    def batches(self, train: Examples, size: int, shuffle: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples once, in batches that the network takes: one that normalises by them takes none of one."""
        return train.batches(size, shuffle, batch_statistics=self.network.batch_statistics)

    def as_seen_by(self, task: int) -> AbstractContextManager[None]:
        """While this is open, the network is what `task` (up to the present one) is to be tested with."""
        return nullcontext()

    def in_words(self) -> str:
        """What to say of the method after a task, beside the scores; empty for nothing."""
        return ""

    def measurements(self) -> dict[str, list[dict[str, Any]]]:
        """Rows to record after a task, by name of the table; the loop adds `task_learned`."""
        return {}

    def beside_weights(self) -> dict[str, Tensor]:
        """What the file of a run's weights holds besides, by names that the network's state has none of."""
        return {}

    def expect_all_known(self, known: Iterable[Tensor]) -> None:
        """Raises BlipError where tasks share a parameter that trains and is none of these: nothing would keep it."""
        ids = {id(parameter) for parameter in known}
        shared = self.network.shared.named_parameters()
        if lost := [name for name, p in shared if p.requires_grad and id(p) not in ids]:
            raise BlipError(
                f"methods.{self.name}: {', '.join(lost)}: expected linear layers, convolutions, and norms right after "
                "one in an nn.Sequential, alone"
            )

    def expect_choices(self) -> None:
        """Raises BlipError where a task has one class: its prediction says nothing, so it has no Fisher information."""
        outputs = self.network.outputs
        if (max(outputs) if self.network.one_head else min(outputs)) < 2:
            raise BlipError(f"methods.{self.name}: expected two classes or more in each task, found one")

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers. Raises BlipError where a checkpoint could not give it back."""
        if lacking := [name for name in self.remembered if not hasattr(self, name)]:
            raise BlipError(f"method {self.name}: remembered: {lacking[0]}: no such attribute after __init__")
        state = {name: getattr(self, name) for name in self.remembered}
        for name, value in state.items():
            if (kind := _not_kept(value)) is not None:
                raise BlipError(
                    f"method {self.name}: remembered: {name}: expected tensors, numbers and strings, or dicts and "
                    f"lists of them, found {kind}"
                )
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` handed out."""
        for name in self.remembered:
            setattr(self, name, state[name])
