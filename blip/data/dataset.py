"""A data set: every image of a source once, as read from raw files, and what its own file says of it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blip.errors import BlipError
from blip.schema import Schema

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
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """The arrays by name, as its file holds them."""
        names = (f"{part}_{what}" for part in ("train", "test") for what in ("images", "labels"))
        return {name: torch.from_numpy(getattr(self, name)) for name in names}

    def check(self, name: str) -> "Dataset":
        """Itself. Raises BlipError where images or labels are of another kind, or do not fit together."""
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
                found = f"{images.dtype} of shape {images.shape}"
                raise BlipError(f"{name}: {part} images: expected uint8 (n, 1 or 3, height, width), found {found}")
            if labels.dtype != np.int64 or labels.ndim != 1:
                raise BlipError(f"{name}: {part} labels: expected int64 (n,), found {labels.dtype} {labels.shape}")
            if len(images) != len(labels):
                raise BlipError(f"{name}: {len(images)} {part} images but {len(labels)} labels")
            unknown = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(unknown):
                raise BlipError(
                    f"{name}: {part} label {unknown[0]} is out of range: expected 0 to {len(self.classes) - 1}"
                )
            missing = sorted(set(range(len(self.classes))) - set(np.unique(labels).tolist()))
            if missing:
                raise BlipError(f"{name}: class {self.classes[missing[0]]} has no {part} image")
        if not {len(self.mean), len(self.std)} <= {1, self.train_images.shape[1]}:
            raise BlipError(f"{name}: expected mean and std of all channels or of each, found {self.mean}, {self.std}")
        return self


class DatasetRecord(Schema):
    """What the file of a data set says besides the arrays."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: str | None = None
    """The class folders that it was made of, where the source named some."""
    stand_in: bool = False
    """Whether the images were generated (`blip stand-in`)."""
    raw: str | None = None
    """By what the raw files are known; None where they were not there."""
    content: str = ""
    """SHA-256 of the arrays, and of what is said above but of `raw`: the same images are the same data, wherever they
    come from."""
