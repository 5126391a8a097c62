"""Task sequences: what the training loop is given, one task at a time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blip.data.splits import Split
from blip.data.storage import read_dataset
from blip.devices import upload
from blip.errors import BlipError

CACHED_NUMBERS = 2**18
"""In a batch of images on a CPU; with more, what layers hand on to each other leaves its caches: networks with
convolutions take a third less time for 85 images of 3 × 32 × 32 than for 400."""


@dataclass(frozen=True)
class Examples:
    """Images as uint8 (n, channels, height, width) and labels (n,), on the device; normalised batch by batch.

    Images of one channel become as many as `scale` has. Those of several tasks have the number of their task in `tasks`
    (n,), and `scale` and `shift` hold a row for each task.
    """

    images: Tensor
    labels: Tensor
    scale: Tensor
    """(channels, 1, 1): 1 / (255 · std)"""
    shift: Tensor
    """(channels, 1, 1): -mean / std"""
    tasks: Tensor | None = None
    mixed: bool = False
    """Whether batches are of several tasks even where a network normalises by their own statistics."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> "Examples":
        """The first `n` of them."""
        tasks = None if self.tasks is None else self.tasks[:n]
        return replace(self, images=self.images[:n], labels=self.labels[:n], tasks=tasks)

    @property
    def batch_size(self) -> int:
        """Of batches whose size makes no difference to what is computed: what is fast, and bounds memory."""
        if self.images.device.type != "cpu":
            return 500
        return min(500, max(32, CACHED_NUMBERS // (self.images[0, 0].numel() * len(self.scale))))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images and labels at `index` (n,)."""
        labels = self.labels.index_select(0, index)
        if self._normalised is not None:
            return self._normalised.index_select(0, index), labels
        tasks = None if self.tasks is None else self.tasks.index_select(0, index)
        return self._normalise(self.images.index_select(0, index), tasks), labels

    @cached_property
    def _normalised(self) -> Tensor | None:
        """All images, where they are few and on a CPU: there to normalise a batch takes longer than to pick it."""
        if self.images.device.type != "cpu" or self.images[:, 0].numel() * len(self.scale) > CACHED_NUMBERS:
            return None
        return self._normalise(self.images, self.tasks)

    def _normalise(self, images: Tensor, tasks: Tensor | None) -> Tensor:
        """Images, of these tasks where those of several are mixed."""
        scale, shift = self.scale, self.shift
        if tasks is not None:
            scale, shift = scale.index_select(0, tasks), shift.index_select(0, tasks)
        return (images.float() * scale).add_(shift)  # repeats grey images where there are three scales

    def indices(
        self, size: int, shuffle: torch.Generator | None = None, *, batch_statistics: bool = False
    ) -> tuple[Tensor, ...]:
        """Indices of all examples once, in batches (the last may be smaller), on the device.

        In random order where a CPU generator is given. For a network that normalises by the batch's own statistics
        each batch is of one task's examples (unless `mixed`), the tasks' batches shuffled, and none is of a single
        example, which has no spread: the batch before has it, too.
        """
        order = torch.arange(len(self)) if shuffle is None else torch.randperm(len(self), generator=shuffle)
        if not batch_statistics:
            batches = torch.split(order, size)
        elif self.tasks is None or self.mixed:
            batches = of_several(order, size)
        else:
            tasks = self.tasks.cpu()[order]
            apart = [b for task in torch.unique(tasks) for b in of_several(order[tasks == task], size)]
            turns = range(len(apart)) if shuffle is None else torch.randperm(len(apart), generator=shuffle).tolist()
            batches = tuple(apart[i] for i in turns)
            order = torch.cat(batches)
        return torch.split(upload(order, self.labels.device), [len(batch) for batch in batches])

    def sample(self, size: int, shuffle: torch.Generator) -> Tensor:
        """Indices of so many examples, or of all where there are fewer, drawn without replacement, on the device."""
        return upload(torch.randperm(len(self), generator=shuffle)[:size], self.labels.device)

    def batches(
        self, size: int, shuffle: torch.Generator | None = None, *, batch_statistics: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples once, as `batch` gives them, in the order of `indices`."""
        return (self.batch(index) for index in self.indices(size, shuffle, batch_statistics=batch_statistics))


def of_several(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Indices (n,) in batches, but a last batch of one example is part of the one before."""
    batches = torch.split(order, size)
    return (*batches[:-2], torch.cat(batches[-2:])) if len(batches) > 1 and len(batches[-1]) == 1 else batches


def together(parts: list[Examples]) -> Examples:
    """The examples of several tasks, the first of which is task 0."""
    counts = torch.tensor([len(part) for part in parts], device=parts[0].labels.device)
    return Examples(
        torch.cat([part.images.expand(-1, len(part.scale), -1, -1) for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.stack([part.scale for part in parts]),
        torch.stack([part.shift for part in parts]),
        torch.arange(len(parts), device=counts.device).repeat_interleave(counts),
    )


@dataclass(frozen=True)
class Task:
    """What one task trains on: its name, the names of its classes, examples with labels 0…classes-1."""

    name: str
    classes: tuple[str, ...]
    train: Examples
    valid: Examples


class TaskSequence:
    """The tasks of one experiment and seed. Data sets are held once, on `device`; a task is cut out when asked for."""

    def __init__(
        self, split: Split, datasets: dict[str, dict[str, Tensor]], checksum: str, stand_ins: list[str]
    ) -> None:
        self._tasks, self._datasets = split.tasks, datasets
        self.checksum = checksum
        """SHA-256 of the split file, which names the data sets by checksum too."""
        self.stand_ins = stand_ins
        """Data sets that were made of generated images (`blip stand-in`)."""

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, height, width)"""
        return self._tasks[0][0].shape

    @property
    def fewest(self) -> int:
        """Images of the smallest part of any task."""
        parts = [(i.train, i.valid, i.test) for _, i in self._tasks]
        return min(len(part) for of_task in parts for part in of_task if part is not None)

    @property
    def names(self) -> list[str]:
        return [plan.name for plan, _ in self._tasks]

    @property
    def outputs(self) -> list[int]:
        return [len(plan.classes) for plan, _ in self._tasks]

    def task(self, t: int) -> Task:
        """Task t, 0-based, cut out of the data sets."""
        plan, indices = self._tasks[t]
        train = self._examples(t, "train", indices.train)
        valid = train if indices.valid is None else self._examples(t, "train", indices.valid)
        return Task(plan.name, tuple(plan.classes), train, valid)

    def tasks_until(self, t: int) -> Task:
        """Tasks 0 to t as one; its classes are those of each task in turn."""
        tasks = [self.task(i) for i in range(t + 1)]
        train, valid = together([task.train for task in tasks]), together([task.valid for task in tasks])
        return Task(" + ".join(task.name for task in tasks), sum((task.classes for task in tasks), ()), train, valid)

    def test(self, t: int) -> Examples:
        """The test examples of task t; where settings are chosen, those of validation."""
        indices = self._tasks[t][1]
        return self.task(t).valid if indices.test is None else self._examples(t, "test", indices.test)

    def _examples(self, t: int, part: Literal["train", "test"], index: Tensor) -> Examples:
        """Those at `index` of a part of the data set, as task t."""
        plan, indices = self._tasks[t]
        data = self._datasets[plan.source]
        device = data["train_labels"].device
        index = index.to(device)
        images, labels = (data[f"{part}_{what}"].index_select(0, index) for what in ("images", "labels"))
        local = torch.zeros(max(plan.labels) + 1, dtype=torch.int64, device=device)
        local[plan.labels] = torch.arange(len(plan.labels), device=device)
        if indices.pixels is not None:
            images = images.flatten(2).index_select(2, indices.pixels.to(device)).view_as(images)
        channels, height, width = plan.shape
        margins = (width - images.shape[3], height - images.shape[2])
        if any(margins):
            images = F.pad(images, [side for margin in margins for side in (margin // 2, margin - margin // 2)])
        mean, std = (torch.tensor(x, device=device).expand(channels).view(-1, 1, 1) for x in (plan.mean, plan.std))
        return Examples(images, local[labels], 1 / (255 * std), -mean / std)


def load_sequence(split: Split, prepared: Path, device: torch.device | str = "cpu") -> TaskSequence:
    """Read the data sets of a split, each file once, onto `device`.

    Raises BlipError where a file is missing or damaged, or a data set is not the one that the split was made from.
    """
    datasets, stand_ins = {}, []
    for name, checksum in split.datasets.items():
        path = prepared / name
        tensors, record = read_dataset(path)
        if record.content != checksum:
            raise BlipError(f"{path}: not the data set that the split was made from: prepare the data again")
        datasets[name] = {key: tensor.to(device) for key, tensor in tensors.items()}
        if record.stand_in:
            stand_ins.append(name)
    return TaskSequence(split, datasets, hashlib.sha256(split.to_bytes()).hexdigest(), stand_ins)
