"""Generated images that stand in for the real data sets, for tests and for machines without these."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from blip.data.dataset import Images
from blip.data.folders import MARKER
from blip.data.sources import SOURCES
from blip.errors import BlipError
from blip.files import atomic_write, make_folder

TRAIN, TEST = 10, 2
"""Images of a class; of mini-ImageNet the sum."""


def write_stand_ins(raw: Path) -> list[Path]:
    """Class folders of small random pictures for every built-in source with raw files, below `raw`.

    Images of one class are one pattern under noise, so that there is something to learn. Always the same. Raises
    BlipError where `raw` holds anything else.
    """
    make_folder(raw)
    if any(raw.iterdir()) and not (raw / MARKER).exists():
        raise BlipError(f"{raw}: holds other files: expected an empty folder for generated images, or one of them")
    atomic_write(raw / MARKER, "Generated images, not the data sets that the folders are named after.\n")
    folders = []
    for name, source in SOURCES.items():
        if name == "digits":  # comes with a library
            continue
        if name == "miniimagenet":
            parts = {raw / "MI_raw": TRAIN + TEST}
        else:
            parts = {raw / name / "train": TRAIN, raw / name / "test": TEST}
        random = np.random.default_rng(sum(name.encode()))
        for label in range(100 if name in ("cifar100", "miniimagenet") else 10):
            pattern = random.integers(0, 256, (4, 4, source.channels), dtype=np.uint8)
            for folder, count in parts.items():
                for i in range(count):
                    _save(_noisy(pattern, source.side, random), folder / f"class{label:02}" / f"{i}.png")
        folders += list(parts)
    return folders


def _noisy(pattern: Images, side: int, random: np.random.Generator) -> Images:
    """The pattern enlarged to side × side, and noise on it."""
    repeats = -(-side // len(pattern))
    enlarged = pattern.repeat(repeats, 0).repeat(repeats, 1)[:side, :side].astype(np.int64)
    return (enlarged + random.integers(-40, 41, enlarged.shape)).clip(0, 255).astype(np.uint8)


def _save(image: Images, path: Path) -> None:
    from PIL import Image

    make_folder(path.parent)
    content = BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(content, "png", compress_level=1)
    try:
        path.write_bytes(content.getvalue())  # thousands of them: not each one synced to disk
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise BlipError(f"{path}: cannot be written: {error.strerror}") from None
