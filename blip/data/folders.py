"""Class folders of anybody's images."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from blip.data.dataset import Dataset, Images, Labels
from blip.errors import BlipError

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
