"""Splits: which images of which data sets make which task of an experiment, for one seed.

A split's file is small: indices into data sets, which it names by checksum, and the pixel permutations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from blip.data.dataset import DatasetRecord
from blip.data.description import DataConfig, SourceConfig
from blip.data.storage import dataset_path, file_bytes, read_dataset
from blip.errors import BlipError
from blip.schema import Schema
from blip.seeding import generator


def split_path(prepared: Path, experiment: str, seed: int | str) -> Path:
    """Where the split of an experiment and seed lies."""
    return prepared / "splits" / experiment / f"seed{seed}.safetensors"


class TaskPlan(Schema):
    """What a task is cut out of, and how a network gets it."""

    name: str
    source: str
    """The data set's file."""
    labels: list[NonNegativeInt]
    """Its classes, as the data set numbers them."""
    classes: list[str]
    """Their names."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Of the images: channels, height, width."""
    mean: list[float]
    std: list[float]
    """Of all channels, or of each, with pixels in [0, 1]."""


@dataclass(frozen=True)
class Indices:
    """The images of a task (n,): of the data set's training images, or of its test images."""

    train: Tensor
    test: Tensor | None
    """None where settings are chosen: then no test image is named, so none can be looked at."""
    valid: Tensor | None = None
    """Held out of the training images; None where none are."""
    pixels: Tensor | None = None
    """The order of the pixels; None where it is their own."""


class _Record(Schema):
    """What the file says besides the indices."""

    tasks: list[TaskPlan]
    datasets: dict[str, str]
    seed: NonNegativeInt


@dataclass(frozen=True)
class Split:
    """All tasks of an experiment, in their order."""

    tasks: list[tuple[TaskPlan, Indices]]
    datasets: dict[str, str]
    """Checksums of the data sets, by name of the file."""
    seed: int

    def to_bytes(self) -> bytes:
        """The file's content; the same split gives the same bytes."""
        tensors = {
            f"{t}.{part}": index.to(torch.int32)
            for t, (_, indices) in enumerate(self.tasks)
            for part, index in vars(indices).items()
            if index is not None
        }
        record = _Record(tasks=[plan for plan, _ in self.tasks], datasets=self.datasets, seed=self.seed)
        return file_bytes(tensors, record.model_dump(mode="json"))


def make_split(config: DataConfig, seed: int, prepared: Path) -> Split:
    """The split for one seed: all tasks of all sources, whose data sets lie in `prepared`, in their final order."""
    tasks: list[tuple[TaskPlan, Indices]] = []
    checksums = {}
    for source in config.sources:
        path = dataset_path(prepared, source)
        tensors, record = read_dataset(path)
        if record.folder != source.folder_name:
            raise BlipError(f"{path}: made from {record.folder}, not {source.folder_name}: give the sources two names")
        checksums[path.name] = record.content
        tasks += _tasks_of(source, config.shuffle_classes, seed, tensors, record, path.name)
    shapes = {plan.source: plan.shape for plan, _ in tasks}
    if len(set(shapes.values())) > 1:
        raise BlipError(
            f"sources: expected images of one shape (channels, height, width), found {shapes}: see channels and pad_to"
        )
    if config.shuffle_tasks:
        order = torch.randperm(len(tasks), generator=generator(seed, "task order"))
        tasks = [tasks[i] for i in order.tolist()]
    if config.task_order is not None:
        if len(config.task_order) != len(tasks):
            raise BlipError(f"task_order: expected {len(tasks)} numbers, one for each task, found {config.task_order}")
        tasks = [tasks[i] for i in config.task_order]
    if config.trial_tasks:
        if config.trial_tasks > len(tasks):
            raise BlipError(
                f"tasks of a trial: expected at most the {len(tasks)} there are, found {config.trial_tasks}"
            )
        tasks = [(plan, replace(indices, test=None)) for plan, indices in tasks[: config.trial_tasks]]
    if config.validation:
        tasks = [
            (plan, _hold_out(indices, config.validation, generator(seed, "validation", t), f"task {t} ({plan.name})"))
            for t, (plan, indices) in enumerate(tasks)
        ]
    return Split(tasks, checksums, seed)


def _hold_out(indices: Indices, share: float, random: torch.Generator, where: str) -> Indices:
    """The same with a share of the training images for validation."""
    shuffled = torch.randperm(len(indices.train), generator=random)
    held_out = int(share * len(shuffled))  # as published, which rounds down
    if not held_out:
        raise BlipError(
            f"{where}: validation: {share:g} of {len(shuffled)} training images is not even one: expected a larger "
            "share, or 0 to validate on the training images"
        )
    valid, train = shuffled[:held_out].sort().values, shuffled[held_out:].sort().values
    return replace(indices, valid=indices.train[valid], train=indices.train[train])


def _tasks_of(
    source: SourceConfig, shuffle_classes: bool, seed: int, tensors: dict[str, Tensor], data: DatasetRecord, file: str
) -> Iterator[tuple[TaskPlan, Indices]]:
    """The tasks that one source gives."""
    order = list(range(len(data.classes)))
    if shuffle_classes:
        order = torch.randperm(len(data.classes), generator=generator(seed, "class order")).tolist()
    per_task = source.classes_per_task or len(order)
    if len(order) % per_task:
        raise BlipError(f"{source.name}: {len(order)} classes do not make tasks of {per_task} each (classes_per_task)")
    groups = [order[i : i + per_task] for i in range(0, len(order), per_task)]
    images = tensors["train_images"]
    shape, mean, std = _view(source, images, data)
    for number, labels in enumerate(groups * (source.permutations or 1)):
        train, test = (
            torch.from_numpy(np.flatnonzero(np.isin(tensors[f"{part}_labels"].numpy(), labels)))
            for part in ("train", "test")
        )
        pixels = None
        if source.permutations:
            pixels = torch.randperm(images[0, 0].numel(), generator=generator(seed, "pixels", number))
        classes = [data.classes[label] for label in labels]
        name = _task_name(source, number, len(groups), classes)
        plan = TaskPlan(name=name, source=file, labels=labels, classes=classes, shape=shape, mean=mean, std=std)
        yield plan, Indices(train, test, pixels=pixels)


def _view(
    source: SourceConfig, images: Tensor, data: DatasetRecord
) -> tuple[tuple[int, int, int], list[float], list[float]]:
    """Shape and normalisation (mean, std) of the images as the network gets them."""
    stored, height, width = images.shape[1:]
    channels = source.channels or stored
    side = source.pad_to or max(height, width)
    if side < max(height, width):
        raise BlipError(f"{source.name}: pad_to: expected at least the images' {max(height, width)}, found {side}")
    mean, std = source.mean or data.mean, source.std or data.std
    return (channels, *((side, side) if source.pad_to else (height, width))), [*mean], [*std]


def _task_name(source: SourceConfig, number: int, groups: int, classes: list[str]) -> str:
    if source.permutations:
        return f"{source.name}, permutation {number}"
    if groups == 1:
        return source.name
    return f"{source.name} {', '.join(classes) if len(classes) <= 5 else f'{classes[0]} … {classes[-1]}'}"
