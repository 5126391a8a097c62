"""The built-in sources: raw files to data sets, downloaded by torchvision where they are missing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from blip.data import miniimagenet, notmnist
from blip.data.dataset import Dataset, Images
from blip.data.idx import IDX_NAMES, read_idx
from blip.errors import BlipError


@dataclass(frozen=True)
class Source:
    """A built-in data set: its images, how to read its published files, and whether these are there already."""

    side: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of images scaled to [0, 1], as in the published code; none where they are measured, by `read`."""
    read: Callable[[Path], Dataset]
    present: Callable[[Path], bool]
    unverified: Callable[[Path], tuple[Path, str] | None] = lambda raw: None
    """Folder and pattern of those of its files that have no published checksum."""


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


def download(raw: Path, kind: str, by_hand: str, **arguments: Any) -> Any:
    """torchvision's data set `kind` in `raw`, its files checked, or fetched where they are missing or damaged.

    Raises BlipError that says what to put where `by_hand` when they cannot be fetched.
    """
    try:
        datasets = import_module("torchvision.datasets")  # here, since it takes seconds
        return getattr(datasets, kind)(root=raw, download=True, **arguments)
    except (OSError, RuntimeError, ImportError) as error:
        raise BlipError(
            f"{raw}: {kind} is not there or is damaged, and cannot be downloaded ({shorten(str(error), 90)}); {by_hand}"
        ) from None


MNIST_FILES = {  # SHA-256 of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_PLACES = [f"{folder}NAME{end}" for folder in ("mnist/", "MNIST/raw/", "") for end in ("", ".gz")]
FASHION_MNIST_FILES = {  # MD5 of the gzipped files
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_MNIST_PLACES = ["fashion-mnist/NAME.gz", "FashionMNIST/raw/NAME.gz"]
FASHION_MNIST_CLASSES = (
    *("T-shirt or top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def find_idx(raw: Path, places: list[str]) -> dict[str, Path]:
    """The four IDX files, as far as they are there, each in the first of `places` that has it."""
    candidates = {name: [raw / place.replace("NAME", name) for place in places] for name in IDX_NAMES}
    found = {name: next((path for path in paths if path.is_file()), None) for name, paths in candidates.items()}
    return {name: path for name, path in found.items() if path is not None}


def read_mnist(raw: Path) -> Dataset:
    """MNIST from its four original IDX files."""
    paths = _find_or_download(raw, MNIST_PLACES, "MNIST", raw / "mnist")
    arrays = [read_idx(paths[name], MNIST_FILES[name], "sha256 unpacked") for name in IDX_NAMES]
    return _from_idx(arrays, tuple("0123456789"))


def read_fashion_mnist(raw: Path) -> Dataset:
    """Fashion-MNIST from its four original gzipped IDX files."""
    paths = _find_or_download(raw, FASHION_MNIST_PLACES, "FashionMNIST", raw / "fashion-mnist")
    arrays = [read_idx(paths[name], FASHION_MNIST_FILES[name], "md5 packed") for name in IDX_NAMES]
    return _from_idx(arrays, FASHION_MNIST_CLASSES)


def _find_or_download(raw: Path, places: list[str], kind: str, by_hand: Path) -> dict[str, Path]:
    paths = find_idx(raw, places)
    if len(paths) < len(IDX_NAMES):
        names = ", ".join(f"{name}.gz" for name in IDX_NAMES)
        download(raw, kind, f"put {names} into {by_hand}")
        paths = find_idx(raw, places)
    for name in IDX_NAMES:
        if name not in paths:
            raise BlipError(f"{raw}: {kind}: {name}.gz is missing, though the rest is there: put it into {by_hand}")
    return paths


def _from_idx(arrays: list[Images], classes: tuple[str, ...]) -> Dataset:
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        *(train_images[:, None], train_labels.astype(np.int64)),
        *(test_images[:, None], test_labels.astype(np.int64)),
        classes,
    )


CIFAR_FILES = {
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python"),
}
"""The published archive, and the folder that it unpacks to."""


def read_cifar(name: str, raw: Path) -> Dataset:
    """CIFAR-10 or CIFAR-100 from the published batches, which torchvision checks by MD5 before it unpickles them."""
    by_hand = f"put {CIFAR_FILES[name][0]} into {raw}, or images into {raw / name}/train/<class>/ and test/<class>/"
    train, test = (download(raw, name.upper(), by_hand, train=part == "train") for part in ("train", "test"))
    return Dataset(
        np.ascontiguousarray(train.data.transpose(0, 3, 1, 2)),
        np.array(train.targets, dtype=np.int64),
        np.ascontiguousarray(test.data.transpose(0, 3, 1, 2)),
        np.array(test.targets, dtype=np.int64),
        tuple(train.classes),
    )


def cifar_is_present(name: str, raw: Path) -> bool:
    """Whether the published batches are there, packed or not."""
    return any((raw / path).exists() for path in CIFAR_FILES[name])


SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(raw: Path) -> Dataset:
    """SVHN (cropped digits) from its two MATLAB files, which torchvision checks by MD5."""
    by_hand = (
        f"put {' and '.join(SVHN_FILES)} into {raw}, or images into {raw / 'svhn'}/train/<class>/ and test/<class>/"
    )
    train, test = (download(raw, "SVHN", by_hand, split=part) for part in ("train", "test"))
    return Dataset(
        np.ascontiguousarray(train.data),
        train.labels,
        np.ascontiguousarray(test.data),
        test.labels,
        tuple("0123456789"),
    )


CIFAR = ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))

SOURCES: dict[str, Source] = {
    "digits": Source(8, 1, (), (), read_digits, lambda raw: True),
    "mnist": Source(
        *(28, 1, (0.1307,), (0.3081,)),
        read_mnist,
        lambda raw: len(find_idx(raw, MNIST_PLACES)) == len(IDX_NAMES),
    ),
    "fashion-mnist": Source(
        *(28, 1, (0.2860,), (0.3530,)),
        read_fashion_mnist,
        lambda raw: len(find_idx(raw, FASHION_MNIST_PLACES)) == len(IDX_NAMES),
    ),
    "notmnist": Source(
        *(28, 1, notmnist.MEAN, notmnist.STD),
        notmnist.read_notmnist,
        lambda raw: notmnist.find_notmnist(raw) is not None,
        notmnist.unverified,
    ),
    "cifar10": Source(32, 3, *CIFAR, partial(read_cifar, "cifar10"), partial(cifar_is_present, "cifar10")),
    "cifar100": Source(32, 3, *CIFAR, partial(read_cifar, "cifar100"), partial(cifar_is_present, "cifar100")),
    "svhn": Source(
        *(32, 3, (0.4377, 0.4438, 0.4728), (0.198, 0.201, 0.197)),
        read_svhn,
        lambda raw: all((raw / name).is_file() for name in SVHN_FILES),
    ),
    "miniimagenet": Source(
        *(miniimagenet.SIDE, 3, miniimagenet.MEAN, miniimagenet.STD),
        lambda raw: miniimagenet.read_pickles(raw / "miniimagenet"),
        lambda raw: miniimagenet.pickles_are_in(raw / "miniimagenet") or miniimagenet.find_raw(raw) is not None,
        miniimagenet.unverified,
    ),
}
"""Every built-in source by name."""
