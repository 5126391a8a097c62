"""One run, whatever is learned: tasks one after another, what is measured, checkpoints, exact resume."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from blip.data import Examples
from blip.errors import BlipError
from blip.methods import Method
from blip.networks import MultiHeadNetwork
from blip.progress import Progress
from blip.record import COST, MEMORY, Row, Table
from blip.training.checkpoint import Checkpoint

SECONDS_BETWEEN_CHECKPOINTS = 10.0
"""What takes less is sooner done again than written and synced to disk."""


def tensor_bytes(state: Any) -> int:
    """Of the tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(tensor_bytes, parts))


@dataclass(frozen=True)
class Setup:
    """What a run is made of, whatever is learned in it."""

    network: MultiHeadNetwork
    method: Method
    tables: list[Table]
    """What is measured."""
    tasks: list[str]
    """Their names."""
    seed: int
    checkpoint: Checkpoint
    device: torch.device
    cuda_graphs: bool
    """Whether steps are recorded as CUDA graphs where there is such a device and the method allows it."""


class Trainer(ABC):
    """The tasks of an experiment learned by one method with one seed.

    `tables` collects what is measured, as rows. Every random draw is addressed by (seed, purpose, task, place in the
    task), so a run that goes on from a checkpoint ends with the same numbers as one that was never stopped (same
    machine, libraries and threads). A kind of experiment says how a task is learned and tested, for at most so many
    `units`, epochs or whatever `unit` is.
    """

    unit: ClassVar[str] = "epoch"
    left: ClassVar[str] = "at most"
    """What the time left is."""

    def __init__(self, setup: Setup, units: int) -> None:
        self.network, self.method = setup.network, setup.method
        self.names, self.units = setup.tasks, units
        self.seed, self.checkpoint, self.device = setup.seed, setup.checkpoint, setup.device
        self.cuda_graphs = setup.cuda_graphs and self.device.type == "cuda" and self.method.cuda_graphs
        self.tables: dict[str, list[Row]] = {table.name: [] for table in setup.tables}
        self.trained: list[int] = []
        """How long each task was trained."""
        self.task, self.done = 0, 0
        """The task being learned, and how many of its epochs or updates are done."""
        self._seconds: dict[str, float] = {}
        self.seconds_between_checkpoints = SECONDS_BETWEEN_CHECKPOINTS
        self._last_saved = time.monotonic()

    def run(self, title: str) -> None:
        """Learn all tasks, from the checkpoint on where there is one."""
        saved, learning = self.checkpoint.load(self.device), None
        with Progress(title, len(self.names) * self.units, unit=self.unit, left=self.left) as progress:
            self.method.state_dict()  # what it cannot remember is told now, and not hours later
            if saved:
                with self.checkpoint.restoring():
                    self._restore(saved)
                    learning = saved["learning"]
                progress.say(f"going on at task {self.task + 1}, {self.unit} {self.done + 1}")
            while self.task < len(self.names):
                self.method.before_task(self.task)
                self._learn(progress, learning)
                learning = None
                self._finish_task(progress)

    @abstractmethod
    def _learn(self, progress: Progress, saved: Row | None) -> None:
        """Train on the present task to its end, from `saved` (what was given to `_save`) on where there is such."""

    @abstractmethod
    def _examples(self) -> Examples:
        """What the method is given when the task has been learned."""

    @abstractmethod
    def _test(self) -> str:
        """Measure and record the score on every task so far; what to say of it."""

    @abstractmethod
    def _trained(self) -> int:
        """How long the present task has been trained."""

    def _finish_task(self, progress: Progress) -> None:
        with self._timed("consolidate"):
            self.method.after_task(self.task, self._examples())
        result = self._test()
        declared = {table.name: table for table in self.method.tables}
        for name, rows in self.method.measurements().items():
            if name not in declared:
                raise BlipError(f"method {self.method.name}: measurements: {name}: not among its tables")
            for row in rows:
                self.tables[name].append(declared[name].checked({"task_learned": self.task, **row}))
        self._record(MEMORY, self.task, tensor_bytes(self.method.state_dict()))
        for phase, seconds in self._seconds.items():
            self._record(COST, self.task, phase, round(seconds, 3))
        self.trained.append(self._trained())
        told = ", ".join(filter(None, [result, self.method.in_words()]))
        progress.say(f"{self._place()} learned in {self.done} {self.unit}{'s' * (self.done != 1)}: {told}")
        self.task, self.done, self._seconds = self.task + 1, 0, {}
        self._save(None)

    def _place(self) -> str:
        return f"task {self.task + 1}/{len(self.names)} ({self.names[self.task]})"

    def _record(self, table: Table, *values: float | int | str) -> None:
        self.tables[table.name].append(table.row(*values))

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to those of `phase`."""
        start = time.perf_counter()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def _save(self, learning: Row | None) -> None:
        """Write a checkpoint with `learning`, what a task's training goes on from, unless the last one is young."""
        if time.monotonic() - self._last_saved < self.seconds_between_checkpoints:
            return
        with self._timed("checkpoint"):
            self.checkpoint.save(
                {
                    "task": self.task,
                    "done": self.done,
                    "network": self.network.state_dict(),
                    "method": self.method.state_dict(),
                    "learning": learning,
                    "tables": self.tables,
                    "trained": self.trained,
                    "seconds": self._seconds,
                }
            )
        self._last_saved = time.monotonic()

    def _restore(self, saved: Row) -> None:
        if saved["tables"].keys() != self.tables.keys():
            raise ValueError(f"tables {', '.join(saved['tables'])}")
        self.task, self.done = saved["task"], saved["done"]
        self.network.load_state_dict(saved["network"])
        self.method.load_state_dict(saved["method"])
        self.tables, self.trained, self._seconds = saved["tables"], saved["trained"], saved["seconds"]
