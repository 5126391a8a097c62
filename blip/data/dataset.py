"""A data set in memory, as read from raw files."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
