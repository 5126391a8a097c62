"""Raw data to arrays: the built-in sources, and class folders of anybody's images."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from blip.errors import BlipError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Images (n, channels, height, width), labels 0…classes-1 (n,), and how to normalise images scaled to [0, 1]."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self, name: str) -> "Dataset":
        """Itself. Raises BlipError where images and labels do not fit together."""
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if len(images) != len(labels):
                raise BlipError(f"{name}: {len(images)} {part} images but {len(labels)} labels")
            outside = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(outside):
                raise BlipError(
                    f"{name}: {part} label {outside[0]} is out of range: expected 0 to {len(self.classes) - 1}"
                )
            missing = sorted(set(range(len(self.classes))) - set(np.unique(labels).tolist()))
            if missing:
                raise BlipError(f"{name}: class {self.classes[missing[0]]} has no {part} image")
        return self


@dataclass(frozen=True)
class Source:
    """How to get a built-in data set from a folder of raw files, and whether it is there already."""

    read: Callable[[Path], Dataset]
    present: Callable[[Path], bool]


def read_digits(raw: Path) -> Dataset:
    """scikit-learn's bundled 8×8 digits (1,797 images); within each class every fifth image is a test image."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[4::5]] = True
    scaled = images[~test] / 255
    return Dataset(
        images[~test],
        labels[~test].astype(np.int64),
        images[test],
        labels[test].astype(np.int64),
        tuple("0123456789"),
        (round(float(scaled.mean()), 4),),
        (round(float(scaled.std()), 4),),
    )


MNIST_FILES = {  # SHA-256 of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def find_mnist_file(raw: Path, name: str) -> Path | None:
    """A MNIST file, gzipped or not, in `raw`/mnist, in torchvision's `raw`/MNIST/raw, or in `raw` itself."""
    folders = (raw / "mnist", raw / "MNIST" / "raw", raw)
    candidates = (folder / f"{name}{end}" for folder in folders for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def read_mnist(raw: Path) -> Dataset:
    """MNIST from its four original IDX files; downloaded with torchvision where they are missing."""
    if any(find_mnist_file(raw, name) is None for name in MNIST_FILES):
        download_mnist(raw)
    train_images, train_labels, test_images, test_labels = (
        read_idx(raw, name, checksum) for name, checksum in MNIST_FILES.items()
    )
    return Dataset(
        train_images[:, None],
        train_labels.astype(np.int64),
        test_images[:, None],
        test_labels.astype(np.int64),
        tuple("0123456789"),
        (0.1307,),
        (0.3081,),
    )


def download_mnist(raw: Path) -> None:
    """Fetch MNIST into `raw`/MNIST/raw. Raises BlipError that says which files to put where by hand."""
    try:
        from torchvision.datasets import MNIST

        MNIST(root=raw, download=True)
    except (OSError, RuntimeError, ImportError) as error:
        names = ", ".join(f"{name}.gz" for name in MNIST_FILES)
        raise BlipError(
            f"{raw}: MNIST is not there and cannot be downloaded ({shorten(str(error), 90)}); "
            f"put {names} into {raw / 'mnist'}"
        ) from None


def read_idx(raw: Path, name: str, checksum: str) -> Images:
    """The array in an IDX file of unsigned bytes. Raises BlipError where it is damaged or another file."""
    path = find_mnist_file(raw, name)
    if path is None:
        raise BlipError(f"{raw}: {name}.gz is missing")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise BlipError(f"{path}: damaged or unreadable: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise BlipError(
            f"{path}: checksum of the unpacked file is {found[:12]}…, expected {checksum[:12]}…: "
            "damaged or another file; delete it and fetch it again"
        )
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()


SOURCES: dict[str, Source] = {
    "digits": Source(read_digits, lambda raw: True),
    "mnist": Source(read_mnist, lambda raw: all(find_mnist_file(raw, name) for name in MNIST_FILES)),
}

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


def read_image_folder(folder: Path, side: int, channels: int) -> Dataset:
    """Class folders of images, `folder`/{train,test}/<class>/*.{png,jpg,jpeg,webp}, resized to side × side.

    Classes are numbered in the sorted order of their names, images in the sorted order of theirs, so that the result
    is the same on every file system. Files of other kinds are passed over. Mean and standard deviation are those of
    the training images, per channel.
    """
    classes = class_folders(folder / "train")
    if class_folders(folder / "test") != classes:
        odd = sorted(set(classes) ^ set(class_folders(folder / "test")))[0]
        raise BlipError(f"{folder}: class {odd} is not in both train and test")
    parts = {part: read_images(folder / part, classes, side, channels) for part in ("train", "test")}
    images = parts["train"][0]
    # Exact sums of integers, no float copy of the whole data set.
    sums = [images[:, c].sum(dtype=np.uint64) for c in range(channels)]
    squares = [np.square(images[:, c], dtype=np.uint16).sum(dtype=np.uint64) for c in range(channels)]
    pixels = images[:, 0].size
    mean = [float(s) / pixels / 255 for s in sums]
    std = [max((float(s) / pixels / 255**2 - m * m), 1e-6) ** 0.5 for s, m in zip(squares, mean, strict=True)]
    return Dataset(*parts["train"], *parts["test"], classes, tuple(mean), tuple(std))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in `folder`, sorted."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise BlipError(f"{folder}: cannot be read: {error.strerror}") from None
    if not names:
        raise BlipError(f"{folder}: expected a folder of images for each class, found none")
    return tuple(names)


def read_images(folder: Path, classes: tuple[str, ...], side: int, channels: int) -> tuple[Images, Labels]:
    """All images of `folder`/<class>, decoded in parallel, as (n, channels, side, side), and their labels."""
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in IMAGE_ENDINGS
    ]
    with ThreadPoolExecutor() as pool:
        images = pool.map(lambda file: read_image(file[0], side, channels), files)
        arrays = list(tqdm(images, str(folder), len(files), unit="image", disable=None))
    if not arrays:
        raise BlipError(f"{folder}: no image ({', '.join(sorted(IMAGE_ENDINGS))}) in its class folders")
    return np.stack(arrays), np.array([label for _, label in files], dtype=np.int64)


def read_image(path: Path, side: int, channels: int) -> Images:
    """One image as (channels, side, side): grey, palette and transparent images are converted."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            converted = image.convert("RGB" if channels == 3 else "L")
            if converted.size != (side, side):
                converted = converted.resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(converted, dtype=np.uint8).reshape(side, side, channels).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BlipError(f"{path}: not a readable image: {error}") from None


def is_present(name: str, folder: Path | None, raw: Path) -> bool:
    """Whether the raw data of a source can be read without a download."""
    return (raw / folder).is_dir() if folder else SOURCES[name].present(raw)


def read_source(name: str, folder: Path | None, side: int | None, channels: int, raw: Path) -> Dataset:
    """The data set of a configured source: built-in by its name, or from class folders below `raw`."""
    if folder is not None:
        assert side is not None  # the configuration asks for it
        return read_image_folder(raw / folder, side, channels).check(str(raw / folder))
    return SOURCES[name].read(raw).check(name)
