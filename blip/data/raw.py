"""The raw data of a source: where they are, by what they are known, and how they are read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from blip.data import miniimagenet
from blip.data.dataset import Dataset
from blip.data.description import SourceConfig
from blip.data.folders import file_identity, read_image_folder, stands_in
from blip.data.sources import SOURCES
from blip.errors import BlipError


def is_present(source: SourceConfig, raw: Path) -> bool:
    """Whether the raw data of a source can be read without a download."""
    folder = _class_folders(source, raw)
    return folder.is_dir() if folder else SOURCES[source.name].present(raw)


def needs_pickles(source: SourceConfig, raw: Path) -> bool:
    """Whether a source is read from mini-ImageNet's pickles, and these are still to be made of its raw images."""
    return (
        source.name == "miniimagenet"
        and _class_folders(source, raw) is None
        and not miniimagenet.pickles_are_in(raw / "miniimagenet")
    )


def prepare_pickles(source: SourceConfig, raw: Path, prepared: Path) -> list[Path]:
    """Make mini-ImageNet's pickles of its raw images, below `prepared`; what is complete is left alone."""
    classes, images = _expected(source)
    return miniimagenet.build_pickles(raw, prepared / "miniimagenet", classes=classes, images_per_class=images)


def is_stand_in(source: SourceConfig, raw: Path, prepared: Path) -> bool:
    """Whether what `read_source` reads only stands in for the real images."""
    pickles = prepared if needs_pickles(source, raw) else raw
    place = pickles / "miniimagenet" if source.name == "miniimagenet" else raw
    return source.reads_raw and stands_in(_class_folders(source, raw) or place)


def read_source(source: SourceConfig, raw: Path, prepared: Path) -> Dataset:
    """The data set of a source, from its raw files in `raw`.

    A built-in source comes first from class folders of images, <raw>/<name>/{train,test}/<class>/…, where they are
    there, then from its published files. Files made on the way lie below `prepared`. Raises BlipError where a built-in
    source does not have its classes.
    """
    folder = _class_folders(source, raw)
    if source.folder is not None:
        assert folder is not None
        assert source.side is not None  # the configuration asks for it
        return read_image_folder(folder, source.side, source.channels or 3).check(str(folder))
    builtin, where = SOURCES[source.name], source.name
    if folder is not None:
        data, where = read_image_folder(folder, builtin.side, builtin.channels), str(folder)
    elif needs_pickles(source, raw):
        pickles = prepared / "miniimagenet"
        if miniimagenet.find_raw(raw) or not miniimagenet.pickles_are_in(pickles):
            prepare_pickles(source, raw, prepared)
        data, where = miniimagenet.read_pickles(pickles), str(pickles)
    else:
        data = builtin.read(raw)
    whole = (replace(data, mean=builtin.mean, std=builtin.std) if builtin.mean else data).check(where)
    _check_counts(source, whole, where)
    return whole


def _check_counts(source: SourceConfig, data: Dataset, where: str) -> None:
    """Raise BlipError where a built-in source has not the classes, or mini-ImageNet not the images, that it should."""
    classes, images = _expected(source)
    if len(data.classes) != classes:
        raise BlipError(
            f"{where}: expected the {classes} classes of {source.name}, found {len(data.classes)}: name images of your "
            "own as a `folder`"
        )
    if source.name == "miniimagenet":
        counts = np.bincount(data.train_labels) + np.bincount(data.test_labels)
        miniimagenet.check_images_per_class(dict(zip(data.classes, counts.tolist(), strict=True)), images, where)


def _expected(source: SourceConfig) -> tuple[int, int]:
    """The classes of a built-in source, and the images of each of mini-ImageNet's."""
    classes = source.raw_classes or SOURCES[source.name].classes
    return classes, source.raw_images_per_class or miniimagenet.IMAGES_PER_CLASS


def raw_identity(source: SourceConfig, raw: Path) -> str | None:
    """By what the raw files of a source are known: names and sizes, or that they are the published ones.

    None where they are not there. Published files with a known checksum are verified when they are read.
    """
    folder = _class_folders(source, raw)
    if folder is not None:
        return file_identity(folder, "t*/*/*")
    if not SOURCES[source.name].present(raw):
        return None
    unverified = SOURCES[source.name].unverified(raw)
    found = file_identity(*unverified) if unverified else "as published"
    named = source.raw_classes or source.raw_images_per_class
    if found is None or not named or not needs_pickles(source, raw):
        return found
    return "{}, {} classes of {}".format(found, *_expected(source))


def _class_folders(source: SourceConfig, raw: Path) -> Path | None:
    """The folder of the class folders of images that a source is read from; None where it comes as published."""
    if source.folder is not None:
        return raw / source.folder
    folder = raw / source.name
    # With one of them alone, reading says that the other is missing.
    return folder if any((folder / part).is_dir() for part in ("train", "test")) else None
