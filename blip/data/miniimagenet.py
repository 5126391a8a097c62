"""mini-ImageNet: MI_raw → train.pkl and test.pkl in the published form → a data set of 84×84 images.

Which image is for training and which for testing is the published rule (numpy seed 1234, class by class, 500 and 100
of 600), on classes and images in the order of their names: the published script took the order of the file system.
"""

import csv
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from blip.data.dataset import Dataset, Images
from blip.data.folders import MARKER, decode_image, in_parallel, is_image, resize_image, stands_in
from blip.data.pickles import dump_images, load_plain
from blip.errors import BlipError
from blip.files import atomic_path, atomic_write, csv_text, make_folder, matching, regular, sha256

SIDE = 84
CLASSES, IMAGES_PER_CLASS = 100, 600
PICKLES = ("train.pkl", "test.pkl")
CHECKSUMS = "SHA256SUMS"
"""Written last: a folder that has it is complete."""
MANIFEST = "manifest.csv"
"""Which image is where: file, class, label, part, and position in the part's pickle."""
FILES = (*PICKLES, MANIFEST, CHECKSUMS)


@dataclass(frozen=True)
class RawImages:
    """The images of MI_raw by class, names sorted, and how to read one; a zip is read where it is, never unpacked."""

    where: Path
    files: dict[str, list[str]]
    read: Callable[[str], bytes]


def find_raw(raw: Path) -> Path | None:
    """`raw`/MI_raw or `raw`/MI_raw.zip."""
    folder, archive = raw / "MI_raw", raw / "MI_raw.zip"
    return folder if folder.is_dir() else archive if archive.is_file() else None


def pickles_are_in(folder: Path) -> bool:
    """Whether `folder` holds train.pkl and test.pkl."""
    return all((folder / name).is_file() for name in PICKLES)


@contextmanager
def open_raw(raw: Path) -> Iterator[RawImages]:
    """The images below `raw`. Raises BlipError where there are none, or the zip is damaged or not to be trusted."""
    path = find_raw(raw)
    if path is None:
        raise BlipError(
            f"{raw}: mini-ImageNet is not there and cannot be downloaded: put MI_raw.zip, or MI_raw/<class>/<image>, "
            "there (its images are ImageNet's, whose licence you accept where you get them)"
        )
    if path.is_dir():
        names = [f"{file.parent.name}/{file.name}" for file in matching(path, "*/*") if file.is_file()]
        yield RawImages(path, _by_class(names, path), lambda name: (path / name).read_bytes())
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield RawImages(path, _by_class(archive.namelist(), path), archive.read)
    except zipfile.BadZipFile as error:
        raise BlipError(f"{path}: damaged zip file: {error}") from None


def _by_class(names: list[str], where: Path) -> dict[str, list[str]]:
    """Sorted image names by sorted class, from names that end in <class>/<image>. Other files are passed over."""
    files: dict[str, list[str]] = {}
    tops = set()
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or any(":" in part for part in path.parts[:1]):
            raise BlipError(f"{where}: refused: it holds the path {name!r}, which leads out of it")
        if is_image(path.name) and len(path.parts) >= 2 and "__MACOSX" not in path.parts:
            files.setdefault(path.parent.name, []).append(name)
            tops.add(path.parent.parent)
    if len(tops) > 1:
        raise BlipError(f"{where}: expected <class>/<image> in one folder, found {', '.join(sorted(map(str, tops)))}")
    return {name: sorted(files[name]) for name in sorted(files)}


def build_pickles(
    raw: Path, out: Path, *, classes: int = CLASSES, images_per_class: int = IMAGES_PER_CLASS
) -> list[Path]:
    """Write train.pkl, test.pkl, their manifest and checksums into `out`; returns the pickles' paths.

    Each pickle is a dict {"images": list of (height, width, 3) uint8 arrays in RGB, "labels": list of int}, as the
    published loader wants it. The same raw images give the same bytes (same image library), on every file system, and
    however often a process was killed before. What is complete already is left alone. Memory: a few hundred images.

    Raises BlipError where the numbers of classes and images are not those asked for, or an image cannot be read;
    nothing is written then.
    """
    with open_raw(raw) as images:
        if len(images.files) != classes:
            raise BlipError(f"{images.where}: expected {classes} classes, found {len(images.files)}")
        counts = {name: len(files) for name, files in images.files.items()}
        check_images_per_class(counts, images_per_class, str(images.where))
        parts = split_files(images.files, images_per_class * 5 // 6)
        manifest = _manifest(parts, list(images.files))
        if generated := stands_in(images.where):
            atomic_write(out / MARKER, f"Made of the generated images in {images.where.name}.\n")
        if not _complete(out, manifest):
            make_folder(out)
            (out / CHECKSUMS).unlink(missing_ok=True)
            with atomic_path(out / PICKLES[0]) as train, atomic_path(out / PICKLES[1]) as test:
                _write_pickle(train, images, parts["train"], "mini-ImageNet train.pkl")
                _write_pickle(test, images, parts["test"], "mini-ImageNet test.pkl")
            atomic_write(out / MANIFEST, manifest)
            atomic_write(out / CHECKSUMS, _checksums(out))
        if not generated:
            (out / MARKER).unlink(missing_ok=True)  # not before the pickles are others
    return [out / name for name in PICKLES]


def split_files(files: dict[str, list[str]], train: int) -> dict[str, list[tuple[str, int]]]:
    """(file, label) of the training part, `train` images a class, and of the test part, in the pickles' order."""
    random = np.random.RandomState(1234)  # published seed, and one stream over the classes
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for label, names in enumerate(files.values()):
        shuffled = list(names)
        random.shuffle(shuffled)
        parts["train"] += [(name, label) for name in shuffled[:train]]
        parts["test"] += [(name, label) for name in shuffled[train:]]
    return parts


def check_images_per_class(counts: Mapping[str, int], expected: int, where: str) -> None:
    """Raise BlipError naming the first class, of those by name, that has another number of images."""
    for name, found in counts.items():
        if found != expected:
            raise BlipError(f"{where}: class {name}: expected {expected} images, found {found}")


def _write_pickle(path: Path, images: RawImages, files: list[tuple[str, int]], title: str) -> None:
    decoded = in_parallel(lambda file: _decode(images, file[0]), files, title)
    with path.open("wb") as file:
        dump_images(decoded, [label for _, label in files], file)


def _decode(images: RawImages, name: str) -> Images:
    where = f"{images.where}: {name}"
    try:
        content = images.read(name)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise BlipError(f"{where}: cannot be read: {error}") from None
    return decode_image(content, where)


def _manifest(parts: dict[str, list[tuple[str, int]]], classes: list[str]) -> str:
    columns = ("part", "position", "label", "class", "file")
    rows = [
        (part, position, label, classes[label], PurePosixPath(name).name)
        for part, files in parts.items()
        for position, (name, label) in enumerate(files)
    ]
    return csv_text((dict(zip(columns, row, strict=True)) for row in rows), columns)


def _complete(out: Path, manifest: str) -> bool:
    try:
        return regular(out / MANIFEST).read_text(encoding="utf-8", errors="replace") == manifest and _checksums_hold(
            out
        )
    except OSError:
        return False


def _checksums(folder: Path) -> str:
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in (*PICKLES, MANIFEST))


def _checksums_hold(folder: Path) -> bool:
    return regular(folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace") == _checksums(folder)


def read_pickles(folder: Path) -> Dataset:
    """The data set in train.pkl and test.pkl of `folder`, built here or by the published script.

    Images are resized to 84 × 84. Memory: the pickles' content and the data set. Raises BlipError where a file is
    damaged, was changed since its checksum was taken, or holds anything but plain data.
    """
    try:
        if (folder / CHECKSUMS).exists() and not _checksums_hold(folder):
            raise BlipError(f"{folder}: a file does not have its checksum in {CHECKSUMS}: build the pickles again")
        parts = [_read_pickle(folder / name) for name in PICKLES]
    except OSError as error:
        raise BlipError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    count = 1 + max(int(labels.max()) for _, labels in parts)
    if count > sum(len(labels) for _, labels in parts):  # before a name is made for each
        raise BlipError(f"{folder}: expected labels 0, 1, 2, …, found {count - 1}")
    return Dataset(*parts[0], *parts[1], _class_names(folder, count))


def _read_pickle(path: Path) -> tuple[Images, Any]:
    with path.open("rb") as file:
        try:
            content = load_plain(file)
        except pickle.UnpicklingError as error:
            raise BlipError(f"{path}: refused: {error}") from None
    if not isinstance(content, dict) or not {"images", "labels"} <= content.keys():
        raise BlipError(f"{path}: expected a dict of images and labels")
    try:
        images, labels = list(content.pop("images")), np.asarray(content["labels"])
    except (TypeError, ValueError):
        raise BlipError(f"{path}: expected a list of images, and one of as many labels (int)") from None
    if labels.ndim != 1 or labels.dtype.kind not in "ui" or not 0 < len(labels) == len(images):
        raise BlipError(f"{path}: expected as many labels (int) as images")
    resized = np.empty((len(images), 3, SIDE, SIDE), np.uint8)
    for i, image in enumerate(images):
        if getattr(image, "dtype", None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BlipError(f"{path}: image {i}: expected an array (height, width, 3) of uint8")
        resized[i] = resize_image(image, SIDE).transpose(2, 0, 1)
    return resized, labels.astype(np.int64)


def _class_names(folder: Path, count: int) -> tuple[str, ...]:
    """From the manifest where there is one, else the numbers."""
    names = {str(label): str(label) for label in range(count)}
    if (folder / MANIFEST).exists():
        path = regular(folder / MANIFEST)
        try:
            with path.open(newline="", encoding="utf-8") as file:
                names |= {row["label"]: row["class"] for row in csv.DictReader(file)}
        except (KeyError, UnicodeDecodeError, csv.Error) as error:
            raise BlipError(f"{path}: expected columns label and class ({type(error).__name__}: {error})") from None
        if not all(isinstance(name, str) for name in names.values()):
            raise BlipError(f"{path}: expected a class in every row")
    return tuple(names[str(label)] for label in range(count))
