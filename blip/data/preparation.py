"""Raw data to data sets (every image of a source once) and splits (which images make which task, one a seed).

A split holds, for one experiment and seed, the indices into data sets and the pixel permutations that make its tasks.
It is small and names its data sets by checksum.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blip.data import miniimagenet
from blip.data.dataset import Dataset
from blip.data.description import DataConfig, SourceConfig
from blip.data.folders import file_identity, read_image_folder
from blip.data.sources import SOURCES
from blip.data.stand_in import MARKER
from blip.data.storage import read_dataset, to_bytes, write_dataset
from blip.errors import BlipError
from blip.files import atomic_write, regular
from blip.seeding import generator


def dataset_path(folder: Path, source: SourceConfig) -> Path:
    """Where the prepared data set of a source lies; class folders also by the size they were resized to."""
    size = f"-{source.side}x{source.side}x{source.channels or 3}" if source.folder else ""
    return folder / f"{source.name}{size}.safetensors"


def split_path(folder: Path, experiment: str, seed: int | str) -> Path:
    """Where the split of an experiment and seed lies."""
    return folder / "splits" / experiment / f"seed{seed}.safetensors"


def is_present(source: SourceConfig, raw: Path) -> bool:
    """Whether the raw data of a source can be read without a download."""
    if source.folder:
        return (raw / source.folder).is_dir()
    return _as_class_folders(source.name, raw) or SOURCES[source.name].present(raw)


def needs_pickles(source: SourceConfig, raw: Path) -> bool:
    """Whether a source is read from mini-ImageNet's pickles, and these are still to be made of its raw images."""
    return (
        source.name == "miniimagenet"
        and source.folder is None
        and not _as_class_folders(source.name, raw)
        and not miniimagenet.pickles_are_in(raw / "miniimagenet")
    )


def prepare_pickles(source: SourceConfig, raw: Path, folder: Path) -> list[Path]:
    """Make mini-ImageNet's pickles of its raw images, below `folder`; what is complete is left alone."""
    return miniimagenet.build_pickles(
        raw,
        folder / "miniimagenet",
        classes=source.raw_classes or miniimagenet.CLASSES,
        images_per_class=source.raw_images_per_class or miniimagenet.IMAGES_PER_CLASS,
    )


def read_source(source: SourceConfig, raw: Path, folder: Path) -> Dataset:
    """The data set of a source, from its raw files in `raw`.

    A built-in source comes first from class folders of images, <raw>/<name>/{train,test}/<class>/…, where they are
    there, then from its published files. Files made on the way lie below `folder`.
    """
    if source.folder is not None:
        assert source.side is not None  # the configuration asks for it
        where = raw / source.folder
        return read_image_folder(where, source.side, source.channels or 3).check(str(where))
    builtin = SOURCES[source.name]
    if _as_class_folders(source.name, raw):
        where = raw / source.name
        data = read_image_folder(where, builtin.side, builtin.channels).check(str(where))
        return replace(data, mean=builtin.mean, std=builtin.std) if builtin.mean else data
    if needs_pickles(source, raw):
        pickles = folder / "miniimagenet"
        if miniimagenet.find_raw(raw) or not miniimagenet.pickles_are_in(pickles):
            prepare_pickles(source, raw, folder)
        return miniimagenet.read_pickles(pickles).check(str(pickles))
    return builtin.read(raw).check(source.name)


def raw_identity(source: SourceConfig, raw: Path) -> str | None:
    """By what the raw files of a source are known: names and sizes, or that they are the published ones.

    None where they are not there. Published files with a known checksum are verified when they are read.
    """
    if source.folder is not None:
        return file_identity(raw / source.folder, "*/*/*")
    if _as_class_folders(source.name, raw):
        return file_identity(raw / source.name, "*/*/*")
    if not SOURCES[source.name].present(raw):
        return None
    unverified = SOURCES[source.name].unverified(raw)
    return file_identity(*unverified) if unverified else "as published"


def _as_class_folders(name: str, raw: Path) -> bool:
    # With one of them alone, reading says that the other is missing.
    return any((raw / name / part).is_dir() for part in ("train", "test"))


def prepare_dataset(source: SourceConfig, raw: Path, folder: Path) -> Path:
    """Read a raw source and write its data set file below `folder`."""
    data = read_source(source, raw, folder)
    path = dataset_path(folder, source)
    tensors = {
        f"{part}_{what}": torch.from_numpy(getattr(data, f"{part}_{what}"))
        for part in ("train", "test")
        for what in ("images", "labels")
    }
    about = {
        "classes": data.classes,
        "mean": data.mean,
        "std": data.std,
        "folder": _folder(source),
        "stand_in": (raw / MARKER).exists(),
        "raw": raw_identity(source, raw),
    }
    write_dataset(path, tensors, about)
    return path


def _folder(source: SourceConfig) -> str | None:
    return str(source.folder) if source.folder else None


def prepare_experiment(name: str, config: DataConfig, seed: int, raw: Path, folder: Path) -> Path:
    """Make what is missing of an experiment's data sets and split; returns the split's path.

    A data set file that is there is taken if it is as it was written, and of the raw files, if those are there. The
    split is always made anew, which takes no time, and written only where it changed, so that nothing that depends on
    it is older than it for no reason.
    """
    for source in config.sources:
        if not dataset_path(folder, source).exists():
            prepare_dataset(source, raw, folder)
        else:
            _check_raw(source, raw, dataset_path(folder, source))
    path = split_path(folder, name, seed)
    content = make_split(config, seed, folder)
    if not _holds(path, content):
        atomic_write(path, content)
    return path


def _check_raw(source: SourceConfig, raw: Path, path: Path) -> None:
    """Raise BlipError where a data set was made of other raw files than those that are there; there may be none."""
    _, about = read_dataset(path)
    there, used = raw_identity(source, raw), about.get("raw")
    if None not in (there, used) and about.get("folder") == _folder(source) and there != used:
        raise BlipError(
            f"{path}: made of other raw files ({used}) than those in {raw} now ({there}): "
            "delete it and prepare the data again, or give the --raw that it was made of"
        )


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.exists() and regular(path).read_bytes() == content
    except OSError as error:
        raise BlipError(f"{path}: cannot be read: {error.strerror}") from None


def make_split(config: DataConfig, seed: int, folder: Path) -> bytes:
    """The split file's content for one seed: all tasks of all sources, in their final order."""
    tasks: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    checksums = {}
    for source in config.sources:
        path = dataset_path(folder, source)
        tensors, about = read_dataset(path)
        if about.get("folder") != _folder(source):
            raise BlipError(
                f"{path}: made from {about.get('folder')}, not {_folder(source)}: give the sources two names"
            )
        checksums[path.name] = about["content"]
        tasks += _tasks_of(source, config, seed, tensors, about, path.name)
    shapes = {plan["source"]: tuple(plan["shape"]) for plan, _ in tasks}
    if len(set(shapes.values())) > 1:
        raise BlipError(
            f"sources: expected images of one shape (channels, height, width), found {shapes}: see channels and pad_to"
        )
    if config.shuffle_tasks:
        order = torch.randperm(len(tasks), generator=generator(seed, "task order"))
        tasks = [tasks[i] for i in order.tolist()]
    if config.trial_tasks:
        if config.trial_tasks > len(tasks):
            raise BlipError(f"trial_tasks: expected at most the {len(tasks)} tasks, found {config.trial_tasks}")
        # No test image is named in the split, so none can be looked at.
        tasks = [(plan, {k: v for k, v in parts.items() if k != "test"}) for plan, parts in tasks[: config.trial_tasks]]
    indices: dict[str, Tensor] = {}
    for t, (plan, parts) in enumerate(tasks):
        if config.validation:
            parts = _hold_out(parts, config.validation, generator(seed, "validation", t), f"task {t} ({plan['name']})")
        indices |= {f"{t}.{part}": index.to(torch.int32) for part, index in parts.items()}
    return to_bytes(indices, {"tasks": [plan for plan, _ in tasks], "datasets": checksums, "seed": seed})


def _hold_out(parts: dict[str, Tensor], share: float, random: torch.Generator, where: str) -> dict[str, Tensor]:
    """`parts` with a share of "train" as "valid"."""
    shuffled = torch.randperm(len(parts["train"]), generator=random)
    held_out = int(share * len(shuffled))  # as published, which rounds down
    if not held_out:
        raise BlipError(
            f"{where}: validation: {share:g} of {len(shuffled)} training images is not even one: expected a larger "
            "share, or 0 to validate on the training images"
        )
    valid, train = shuffled[:held_out].sort().values, shuffled[held_out:].sort().values
    return parts | {"valid": parts["train"][valid], "train": parts["train"][train]}


def _tasks_of(
    source: SourceConfig,
    config: DataConfig,
    seed: int,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
    file: str,
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What `TaskSequence` needs to know of each task that one source gives, and its index tensors."""
    classes = about["classes"]
    order = list(range(len(classes)))
    if config.shuffle_classes:
        order = torch.randperm(len(classes), generator=generator(seed, "class order")).tolist()
    per_task = source.classes_per_task or len(order)
    if len(order) % per_task:
        raise BlipError(f"{source.name}: {len(order)} classes do not make tasks of {per_task} each")
    groups = [order[i : i + per_task] for i in range(0, len(order), per_task)]
    view = _view(source, tensors["train_images"], about)
    for number, labels in enumerate(groups * (source.permutations or 1)):
        parts = {
            part: torch.from_numpy(np.flatnonzero(np.isin(tensors[f"{part}_labels"].numpy(), labels)))
            for part in ("train", "test")
        }
        if source.permutations:
            pixels = tensors["train_images"][0, 0].numel()
            parts["pixels"] = torch.randperm(pixels, generator=generator(seed, "pixels", number))
        names = [classes[label] for label in labels]
        plan = {"name": _task_name(source, number, len(groups), names), "source": file, "labels": labels}
        yield plan | {"classes": names} | view, parts


def _view(source: SourceConfig, images: Tensor, about: dict[str, Any]) -> dict[str, Any]:
    """Shape and normalisation of the images as the network gets them."""
    stored, height, width = images.shape[1:]
    channels = source.channels or stored
    side = source.pad_to or max(height, width)
    if side < max(height, width):
        raise BlipError(f"{source.name}: pad_to: expected at least the images' {max(height, width)}, found {side}")
    mean, std = source.mean or about["mean"], source.std or about["std"]
    if not {len(mean), len(std)} <= {1, channels}:
        raise BlipError(f"{source.name}: mean and std: expected one number, or one for each of {channels} channels")
    return {"shape": [channels, *((side, side) if source.pad_to else (height, width))], "mean": mean, "std": std}


def _task_name(source: SourceConfig, number: int, groups: int, classes: list[str]) -> str:
    if source.permutations:
        return f"{source.name}, permutation {number}"
    if groups == 1:
        return source.name
    return f"{source.name} {', '.join(classes) if len(classes) <= 5 else f'{classes[0]} … {classes[-1]}'}"
