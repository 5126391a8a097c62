"""Image files to arrays, and class folders of anybody's images to data sets."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from blip.data.dataset import Dataset, Images, Labels
from blip.errors import BlipError
from blip.files import is_text, matching, regular
from blip.progress import counted

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
MARKER = "STAND-IN"
"""A folder with this file holds no real data: what is prepared from it, or from a folder in it, says so."""
WINDOW = 256
"""Most images that are decoded ahead."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden ones are not."""
    return Path(name).suffix.lower() in IMAGE_ENDINGS and not name.startswith(".")


def decode_image(content: bytes, where: str, side: int | None = None, channels: int = 3) -> Images:
    """An image file as (height, width, channels), or (side, side, channels) where a side is given.

    Grey, palette and transparent images are converted. Raises BlipError naming `where` for anything else, such as 16
    bits a channel, which Pillow would cut to black and white.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise ValueError(f"expected 8 bits a channel, found Pillow's mode {image.mode}")
            converted = image.convert("RGB" if channels == 3 else "L")
    except UnidentifiedImageError:
        raise BlipError(f"{where}: not a readable image: of no format that Pillow knows") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BlipError(f"{where}: not a readable image: {str(error).replace(chr(10), ' ')}") from None
    array = np.asarray(converted, dtype=np.uint8)
    return array.reshape(*array.shape[:2], channels) if side is None else resize_image(array, side, channels)


def resize_image(array: Images, side: int, channels: int = 3) -> Images:
    """(height, width) or (height, width, channels) to (side, side, channels), bilinear as in the published code."""
    from PIL import Image

    if array.shape[:2] != (side, side):
        array = np.asarray(Image.fromarray(array).resize((side, side), Image.Resampling.BILINEAR))
    return array.reshape(side, side, channels)


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Results for all items in their order, made by several threads a few ahead, with progress."""
    with ThreadPoolExecutor() as pool:
        windows = (items[start : start + WINDOW] for start in range(0, len(items), WINDOW))
        results = (result for window in windows for result in pool.map(function, window))
        yield from counted(results, title, len(items), "image")


def read_image_folder(folder: Path, side: int, channels: int) -> Dataset:
    """Class folders of images, `folder`/{train,test}/<class>/*.{png,jpg,jpeg,webp}, resized to side × side.

    Classes are numbered in the sorted order of their names, images in the sorted order of theirs, so that the result
    is the same on every file system. Files of other kinds are passed over. Mean and standard deviation are those of
    the training images, per channel.
    """
    for part in ("train", "test"):
        if not (folder / part).exists():
            raise BlipError(f"{folder}: expected train/<class>/ and test/<class>/ with images, there is no {part}/")
    classes = class_folders(folder / "train")
    if class_folders(folder / "test") != classes:
        odd = sorted(set(classes) ^ set(class_folders(folder / "test")))[0]
        raise BlipError(f"{folder}: class {odd} is not in both train and test")
    train, test = (_read_images(folder / part, classes, side, channels) for part in ("train", "test"))
    return Dataset(*train, *test, classes, *mean_and_std(train[0]))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in `folder`, sorted."""
    paths = [path for path in _listed(folder) if not path.name.startswith(".")]
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise BlipError(f"{path}: leads to {path.readlink()}, which is not there")
        if not is_text(path.name):
            raise BlipError(f"{folder}: expected names in UTF-8, found {path.name!r}")
    names = [path.name for path in paths if path.is_dir()]
    if not names:
        raise BlipError(f"{folder}: expected a folder of images for each class, found none")
    return tuple(names)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name. Raises BlipError where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BlipError(f"{folder}: cannot be read: {error.strerror}") from None


def stands_in(folder: Path) -> bool:
    """Whether a folder is marked as one of generated images, or is in one that is."""
    real = folder.resolve()
    return any((above / MARKER).exists() for above in (real, *real.parents))


def file_identity(folder: Path, pattern: str) -> str | None:
    """A short name for the files below a folder that match a pattern, by their names and sizes; None without any.

    Of a pattern that ends in `*` images alone count. Raises BlipError where a folder cannot be read: what cannot be
    seen is not another set of files.
    """
    if not folder.is_dir():
        return None
    try:
        matched = [path for path in matching(folder, pattern) if path.is_file()]
        files = [path for path in matched if is_image(path.name) or not pattern.endswith("*")]
        sizes = sorted(f"{path.relative_to(folder)} {path.stat().st_size}" for path in files)
    except OSError as error:
        raise BlipError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return f"{len(sizes)} files, {hashlib.sha256(chr(10).join(sizes).encode()).hexdigest()[:12]}" if sizes else None


def mean_and_std(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (n, channels, height, width) scaled to [0, 1]."""
    # Exact sums of integers, no float copy of the whole data set.
    channels = range(images.shape[1])
    pixels = images[:, 0].size
    mean = [float(images[:, c].sum(dtype=np.uint64)) / pixels / 255 for c in channels]
    squares = [float(np.square(images[:, c], dtype=np.uint16).sum(dtype=np.uint64)) for c in channels]
    std = [max(s / pixels / 255**2 - m * m, 1e-6) ** 0.5 for s, m in zip(squares, mean, strict=True)]
    return tuple(mean), tuple(std)


def _read_images(folder: Path, classes: tuple[str, ...], side: int, channels: int) -> tuple[Images, Labels]:
    """All images of `folder`/<class>, as (n, channels, side, side), and their labels."""
    files = [
        (path, label) for label, name in enumerate(classes) for path in _listed(folder / name) if is_image(path.name)
    ]
    if not files:
        raise BlipError(f"{folder}: no image ({', '.join(sorted(IMAGE_ENDINGS))}) in its class folders")
    images = np.empty((len(files), channels, side, side), np.uint8)
    decoded = in_parallel(lambda file: read_image(file[0], side, channels), files, str(folder))
    for i, image in enumerate(decoded):
        images[i] = image
    return images, np.array([label for _, label in files], dtype=np.int64)


def read_image(path: Path, side: int, channels: int) -> Images:
    """One image file as (channels, side, side)."""
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise BlipError(f"{path}: not a readable image: {error.strerror}") from None
    return decode_image(content, str(path), side, channels).transpose(2, 0, 1)
