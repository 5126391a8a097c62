"""Task sequences: which images and classes belong to which task.

Two kinds of files, both safetensors (no code in them, read without copying): the *data set*, every image of a source
once, and the *split*, for one experiment and seed the indices into data sets (and pixel permutations) that make its
tasks. A split is small and names its data sets by checksum.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip.data.settings import DataConfig, SourceConfig
from blip.data.sources import read_source
from blip.errors import BlipError
from blip.files import atomic_write, sha256
from blip.seeding import generator


@dataclass(frozen=True)
class Examples:
    """Images (n, channels, height, width) as uint8 and labels (n,), on the device; normalised batch by batch."""

    images: Tensor
    labels: Tensor
    scale: Tensor
    """(channels, 1, 1): 1 / (255 · std)"""
    shift: Tensor
    """(channels, 1, 1): -mean / std"""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images and labels at `index` (n,)."""
        x = self.images.index_select(0, index).float().mul_(self.scale).add_(self.shift)
        return x, self.labels.index_select(0, index)

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples once, in batches (the last may be smaller); in random order where a CPU generator is given."""
        order = torch.arange(len(self)) if shuffle is None else torch.randperm(len(self), generator=shuffle)
        for index in torch.split(order.to(self.labels.device), size):
            yield self.batch(index)


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
        self,
        plan: list[dict[str, Any]],
        indices: dict[str, Tensor],
        datasets: dict[str, dict[str, Tensor]],
        normalisation: dict[str, tuple[list[float], list[float]]],
        checksum: str,
    ) -> None:
        self._plan, self._indices, self._datasets = plan, indices, datasets
        self._normalisation = normalisation
        self.checksum = checksum
        """SHA-256 of the split file, which names the data sets by checksum too."""

    def __len__(self) -> int:
        return len(self._plan)

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, height, width)"""
        return tuple(next(iter(self._datasets.values()))["train_images"].shape[1:])

    @property
    def names(self) -> list[str]:
        return [plan["name"] for plan in self._plan]

    @property
    def class_counts(self) -> list[int]:
        return [len(plan["classes"]) for plan in self._plan]

    def task(self, t: int) -> Task:
        """Task t, 0-based, cut out of the data sets."""
        plan = self._plan[t]
        train = self._examples(t, "train")
        valid = self._examples(t, "valid") if f"{t}.valid" in self._indices else train
        return Task(plan["name"], tuple(plan["classes"]), train, valid)

    def test(self, t: int) -> Examples:
        """The test examples of task t."""
        return self._examples(t, "test")

    def _examples(self, t: int, part: str) -> Examples:
        plan = self._plan[t]
        data = self._datasets[plan["source"]]
        stored = "test" if part == "test" else "train"
        index = self._indices[f"{t}.{part}"].to(data["train_labels"].device)
        images = data[f"{stored}_images"].index_select(0, index)
        labels = data[f"{stored}_labels"].index_select(0, index)
        local = torch.zeros(max(plan["labels"]) + 1, dtype=torch.int64, device=labels.device)
        local[plan["labels"]] = torch.arange(len(plan["labels"]), device=labels.device)
        if f"{t}.pixels" in self._indices:
            pixels = self._indices[f"{t}.pixels"].to(images.device)
            images = images.flatten(2).index_select(2, pixels).view_as(images)
        mean, std = (torch.tensor(v, device=labels.device) for v in self._normalisation[plan["source"]])
        scale, shift = (1 / (255 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)
        return Examples(images, local[labels], scale, shift)


def dataset_path(folder: Path, source: SourceConfig) -> Path:
    """Where the prepared data set of a source lies; class folders also by the size they were resized to."""
    size = f"-{source.side}x{source.side}x{source.channels}" if source.folder else ""
    return folder / f"{source.name}{size}.safetensors"


def _folder(source: SourceConfig) -> str | None:
    return str(source.folder) if source.folder else None


def split_path(folder: Path, experiment: str, seed: int) -> Path:
    """Where the split of an experiment and seed lies."""
    return folder / "splits" / experiment / f"seed{seed}.safetensors"


def prepare_dataset(source: SourceConfig, raw: Path, folder: Path) -> Path:
    """Read a raw source and write its data set file below `folder`."""
    data = read_source(source.name, source.folder, source.side, source.channels, raw)
    path = dataset_path(folder, source)
    tensors = {
        f"{part}_{what}": torch.from_numpy(getattr(data, f"{part}_{what}"))
        for part in ("train", "test")
        for what in ("images", "labels")
    }
    about = {"classes": data.classes, "mean": data.mean, "std": data.std, "folder": _folder(source)}
    _write(path, tensors, about)
    return path


def prepare_experiment(name: str, config: DataConfig, seed: int, raw: Path, folder: Path) -> Path:
    """Make what is missing of an experiment's data sets and split; returns the split's path.

    A data set file that is there is taken as it is. The split is always made anew, which takes no time, and written
    only where it changed, so that nothing that depends on it is older than it for no reason.
    """
    for source in config.sources:
        if not dataset_path(folder, source).exists():
            prepare_dataset(source, raw, folder)
    path = split_path(folder, name, seed)
    content = make_split(config, seed, folder)
    if not path.exists() or path.read_bytes() != content:
        atomic_write(path, content)
    return path


def make_split(config: DataConfig, seed: int, folder: Path) -> bytes:
    """The split file's content for one seed: all tasks of all sources, in their final order."""
    tasks: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    checksums, shapes = {}, {}
    for source in config.sources:
        path = dataset_path(folder, source)
        tensors, about = _read(path)
        if about.get("folder") != _folder(source):
            raise BlipError(
                f"{path}: made from {about.get('folder')}, not {_folder(source)}: give the sources two names"
            )
        checksums[path.name] = sha256(path)
        shapes[path.name] = tuple(tensors["train_images"].shape[1:])
        tasks += _tasks_of(source, config, seed, tensors, about["classes"], path.name)
    if len(set(shapes.values())) > 1:
        raise BlipError(f"sources: expected images of one shape (channels, height, width), found {shapes}")
    if config.shuffle_tasks:
        order = torch.randperm(len(tasks), generator=generator(seed, "task order"))
        tasks = [tasks[i] for i in order.tolist()]
    indices: dict[str, Tensor] = {}
    for t, (_, parts) in enumerate(tasks):
        if config.validation:
            shuffled = torch.randperm(len(parts["train"]), generator=generator(seed, "validation", t))
            held_out = max(1, round(len(shuffled) * config.validation))
            if held_out >= len(shuffled):
                raise BlipError(f"task {t} ({tasks[t][0]['name']}): too few training images to hold some out")
            valid, train = shuffled[:held_out].sort().values, shuffled[held_out:].sort().values
            parts = parts | {"valid": parts["train"][valid], "train": parts["train"][train]}
        indices |= {f"{t}.{part}": index.to(torch.int32) for part, index in parts.items()}
    return _pack(indices, {"tasks": [plan for plan, _ in tasks], "datasets": checksums, "seed": seed})


def _tasks_of(
    source: SourceConfig,
    config: DataConfig,
    seed: int,
    tensors: dict[str, Tensor],
    classes: list[str],
    file: str,
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Name, data set, labels and classes, and index tensors, of each task that one source gives."""
    order = list(range(len(classes)))
    if config.shuffle_classes:
        order = torch.randperm(len(classes), generator=generator(seed, "class order")).tolist()
    per_task = source.classes_per_task or len(order)
    if len(order) % per_task:
        raise BlipError(f"{source.name}: {len(order)} classes do not make tasks of {per_task} each")
    groups = [order[i : i + per_task] for i in range(0, len(order), per_task)]
    pixels = tensors["train_images"][0, 0].numel()
    for number, labels in enumerate(groups * (source.permutations or 1)):
        parts = {
            part: torch.from_numpy(np.flatnonzero(np.isin(tensors[f"{part}_labels"].numpy(), labels)))
            for part in ("train", "test")
        }
        name = source.name
        if source.permutations:
            name = f"{source.name}, permutation {number}"
            parts["pixels"] = torch.randperm(pixels, generator=generator(seed, "pixels", number))
        elif len(groups) > 1:
            names = [classes[label] for label in labels]
            name = f"{source.name} {', '.join(names)}" if len(names) <= 5 else f"{source.name} {names[0]} … {names[-1]}"
        yield (
            {
                "name": name,
                "source": file,
                "labels": labels,
                "classes": [classes[i] for i in labels],
            },
            parts,
        )


def load_sequence(split: Path, folder: Path, device: torch.device | str = "cpu") -> TaskSequence:
    """Read a split and its data sets, each file once, onto `device`.

    Raises BlipError where a file is missing or damaged, or a data set is not the one that the split was made from.
    """
    indices, about = _read(split)
    datasets, normalisation = {}, {}
    for name, checksum in about["datasets"].items():
        path = folder / name
        tensors, details = _read(path)
        if sha256(path) != checksum:
            raise BlipError(f"{path}: not the data set that {split} was made from: delete both and prepare again")
        datasets[name] = {key: tensor.to(device) for key, tensor in tensors.items()}
        normalisation[name] = (details["mean"], details["std"])
    return TaskSequence(about["tasks"], indices, datasets, normalisation, sha256(split))


def _pack(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    # One metadata entry, since safetensors does not promise an order among several: same content, same bytes.
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    content: bytes = safetensors.torch.save(contiguous, {"about": json.dumps(about, sort_keys=True)})
    return content


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    atomic_write(path, _pack(tensors, about))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of one of this project's data files. Raises BlipError where it is not one."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError:
        raise BlipError(f"{path}: missing: prepare the data first") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BlipError(f"{path}: damaged ({error}): delete it and prepare the data again") from None
