"""MNIST and Fashion-MNIST, each published as four IDX files."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blip.data.dataset import Dataset, Images
from blip.data.download import torchvision_set
from blip.errors import BlipError
from blip.files import regular


@dataclass(frozen=True)
class IdxFiles:
    """The files of one of them."""

    kind: str
    """What torchvision calls it."""
    folder: str
    """Below the raw data, where to put files by hand."""
    places: tuple[str, ...]
    """Below the raw data, where a file may lie, the first of them first; NAME stands for its name."""
    classes: tuple[str, ...]
    checksums: dict[str, str]
    """Of each file, in the order of a data set's arrays."""
    packed: bool
    """Whether the checksums are MD5 of the gzipped files, or SHA-256 of the unpacked ones."""

    def find(self, raw: Path) -> dict[str, Path]:
        """The files, as far as they are there."""
        candidates = {name: [raw / place.replace("NAME", name) for place in self.places] for name in self.checksums}
        found = {name: next((path for path in paths if path.is_file()), None) for name, paths in candidates.items()}
        return {name: path for name, path in found.items() if path is not None}

    def are_in(self, raw: Path) -> bool:
        """Whether all are there."""
        return len(self.find(raw)) == len(self.checksums)

    def read(self, raw: Path) -> Dataset:
        """The data set, fetched where a file is missing."""
        by_hand = raw / self.folder
        if not self.are_in(raw):
            torchvision_set(raw, self.kind, f"put {', '.join(f'{name}.gz' for name in self.checksums)} into {by_hand}")
        paths = self.find(raw)
        for name in self.checksums:
            if name not in paths:
                raise BlipError(
                    f"{raw}: {self.kind}: {name}.gz is missing, though the rest is there: put it into {by_hand}"
                )
        arrays = (self._array(paths[name], checksum) for name, checksum in self.checksums.items())
        train_images, train_labels, test_images, test_labels = arrays
        return Dataset(
            *(train_images[:, None], train_labels.astype(np.int64)),
            *(test_images[:, None], test_labels.astype(np.int64)),
            self.classes,
        )

    def _array(self, path: Path, checksum: str) -> Images:
        """What is in a file, plain or gzipped. Raises BlipError where it is damaged or another one."""
        try:
            file = regular(path).read_bytes()
            content = gzip.decompress(file) if path.suffix == ".gz" else file
        except (OSError, EOFError, zlib.error) as error:
            raise BlipError(f"{path}: damaged or unreadable: {error}") from None
        if self.packed:
            what, found = "file", hashlib.md5(file, usedforsecurity=False).hexdigest()
        else:
            what, found = "unpacked file", hashlib.sha256(content).hexdigest()
        if found != checksum:
            raise BlipError(
                f"{path}: checksum of the {what} is {found[:12]}…, expected {checksum[:12]}…: "
                "damaged or another file; delete it and fetch it again"
            )
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy()


MNIST = IdxFiles(
    kind="MNIST",
    folder="mnist",
    places=tuple(f"{folder}NAME{end}" for folder in ("mnist/", "MNIST/raw/", "") for end in ("", ".gz")),
    classes=tuple("0123456789"),
    checksums={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    packed=False,
)
FASHION_MNIST = IdxFiles(
    kind="FashionMNIST",
    folder="fashion-mnist",
    places=("fashion-mnist/NAME.gz", "FashionMNIST/raw/NAME.gz"),
    classes=(
        *("T-shirt or top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    checksums={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    packed=True,
)
