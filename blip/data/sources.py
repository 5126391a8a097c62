"""The built-in sources: how each is read from its raw files, which are fetched where they are missing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip.data import miniimagenet, notmnist
from blip.data.dataset import Dataset
from blip.data.download import torchvision_set
from blip.data.idx import FASHION_MNIST, MNIST


@dataclass(frozen=True)
class Source:
    """A built-in data set: its images, how to read its published files, and whether these are there already."""

    classes: int
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
    values, labels = _bundled_digits()
    images = np.round(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
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


def _bundled_digits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Images (n, 64) of 0 to 16 and labels (n,)."""
    package = find_spec("sklearn")
    assert package is not None
    file = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.exists():  # scikit-learn itself takes longer to import than the rest of a preparation
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1]
    values, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    return values, labels


CIFAR_FILES = {
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python"),
}
"""The published archive, and the folder that it unpacks to."""


def read_cifar(name: str, raw: Path) -> Dataset:
    """CIFAR-10 or CIFAR-100 from the published batches, which torchvision checks by MD5 before it unpickles them."""
    archive = f"{CIFAR_FILES[name][0]} into {raw} (unpacked, where nothing can be written there)"
    by_hand = f"put {archive}, or images into {raw / name}/train/<class>/ and test/<class>/"
    train, test = (torchvision_set(raw, name.upper(), by_hand, train=part == "train") for part in ("train", "test"))
    return Dataset(
        np.ascontiguousarray(train.data.transpose(0, 3, 1, 2)),
        np.array(train.targets, dtype=np.int64),
        np.ascontiguousarray(test.data.transpose(0, 3, 1, 2)),
        np.array(test.targets, dtype=np.int64),
        tuple(train.classes),
    )


def cifar_is_present(name: str, raw: Path) -> bool:
    """Whether the published batches are there, packed or not."""
    archive, *unpacked = CIFAR_FILES[name]
    return (raw / archive).is_file() or any(next(iter((raw / path).glob("*")), None) for path in unpacked)


SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(raw: Path) -> Dataset:
    """SVHN (cropped digits) from its two MATLAB files, which torchvision checks by MD5."""
    by_hand = (
        f"put {' and '.join(SVHN_FILES)} into {raw}, or images into {raw / 'svhn'}/train/<class>/ and test/<class>/"
    )
    train, test = (torchvision_set(raw, "SVHN", by_hand, split=part) for part in ("train", "test"))
    return Dataset(
        np.ascontiguousarray(train.data),
        train.labels,
        np.ascontiguousarray(test.data),
        test.labels,
        tuple("0123456789"),
    )


def _published(path: Path | None, pattern: str) -> tuple[Path, str] | None:
    """Folder and pattern of a file, or of what matches `pattern` in a folder."""
    return None if path is None else (path.parent, path.name) if path.is_file() else (path, pattern)


def _miniimagenet(raw: Path) -> tuple[Path, str] | None:
    """Of what mini-ImageNet is made of: its pickles in `raw`, or MI_raw's images or zip."""
    made = miniimagenet.pickles_are_in(raw / "miniimagenet")
    return (raw / "miniimagenet", "t*.pkl") if made else _published(miniimagenet.find_raw(raw), "*/*")


CIFAR = ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))

SOURCES: dict[str, Source] = {
    "digits": Source(10, 8, 1, (), (), read_digits, lambda raw: True),
    "mnist": Source(10, 28, 1, (0.1307,), (0.3081,), MNIST.read, MNIST.are_in),
    "fashion-mnist": Source(10, 28, 1, (0.2860,), (0.3530,), FASHION_MNIST.read, FASHION_MNIST.are_in),
    "notmnist": Source(
        *(10, 28, 1, (0.4254,), (0.4501,)),
        notmnist.read_notmnist,
        lambda raw: notmnist.find_notmnist(raw) is not None,
        lambda raw: _published(notmnist.find_notmnist(raw), "notmnist_*.pkl"),
    ),
    "cifar10": Source(10, 32, 3, *CIFAR, partial(read_cifar, "cifar10"), partial(cifar_is_present, "cifar10")),
    "cifar100": Source(100, 32, 3, *CIFAR, partial(read_cifar, "cifar100"), partial(cifar_is_present, "cifar100")),
    "svhn": Source(
        *(10, 32, 3, (0.4377, 0.4438, 0.4728), (0.198, 0.201, 0.197)),
        read_svhn,
        lambda raw: all((raw / name).is_file() for name in SVHN_FILES),
    ),
    "miniimagenet": Source(
        *(miniimagenet.CLASSES, miniimagenet.SIDE, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        lambda raw: miniimagenet.read_pickles(raw / "miniimagenet"),
        lambda raw: _miniimagenet(raw) is not None,
        _miniimagenet,
    ),
}
"""Every built-in source by name."""
