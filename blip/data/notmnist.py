"""notMNIST (letters A to J) as the published experiments had it: a zip of two pickles."""

import io
import pickle
import shutil
import sys
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from blip.data.dataset import Dataset, Images, Labels
from blip.data.download import downloading
from blip.data.pickles import load_plain
from blip.errors import BlipError
from blip.files import atomic_write

URL = "https://github.com/nkundiushuti/notmnist_convert/raw/master/notmnist.zip"
PICKLES = {"train": "notmnist_train.pkl", "test": "notmnist_test.pkl"}


def find_notmnist(raw: Path) -> Path | None:
    """`raw`/notmnist.zip, or in `raw`/notmnist/, where the two unpacked pickles may lie too."""
    zips = (raw / "notmnist.zip", raw / "notmnist" / "notmnist.zip")
    unpacked = raw / "notmnist" if all((raw / "notmnist" / name).is_file() for name in PICKLES.values()) else None
    return unpacked or next((path for path in zips if path.is_file()), None)


def read_notmnist(raw: Path) -> Dataset:
    """notMNIST from its pickles, which may hold plain data only; downloaded where it is missing."""
    path = find_notmnist(raw) or _download(raw)
    parts = [_read_part(path, name) for name in PICKLES.values()]
    return Dataset(*parts[0], *parts[1], tuple("ABCDEFGHIJ"))


def _download(raw: Path) -> Path:
    by_hand = f"put notmnist.zip into {raw}, or images into {raw}/notmnist/train/<class>/ and test/<class>/"
    with downloading(raw, "notMNIST", by_hand):
        content = _fetched(URL)
    atomic_write(raw / "notmnist.zip", content)  # there is no checksum by which half a file could be told
    return raw / "notmnist.zip"


def _fetched(url: str) -> bytes:
    """What is at an address, with progress on a terminal."""
    content = io.BytesIO()
    with urllib.request.urlopen(url, timeout=60) as response:
        total = response.length  # None where the server does not say
        quiet = not sys.stderr.isatty()
        with tqdm.wrapattr(response, "read", total=total, desc=url.rpartition("/")[2], disable=quiet) as stream:
            shutil.copyfileobj(stream, content)
    if total and content.tell() != total:
        raise ConnectionError(f"{content.tell()} of {total} bytes came")
    return content.getvalue()


def _read_part(path: Path, name: str) -> tuple[Images, Labels]:
    where = f"{path}: {name}"
    try:
        if path.is_dir():
            with (path / name).open("rb") as file:
                content = load_plain(file)
        else:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.namelist() if Path(member).name == name]
                if not members:
                    raise BlipError(f"{where}: missing")
                with archive.open(members[0]) as member:
                    content = load_plain(member)
    except zipfile.BadZipFile as error:
        raise BlipError(f"{path}: damaged zip file: {error}: delete it, and it is fetched again") from None
    except (OSError, EOFError, RuntimeError, zlib.error, pickle.UnpicklingError) as error:
        raise BlipError(f"{where}: {error}") from None
    return _checked(content, where)


def _checked(content: Any, where: str) -> tuple[Images, Labels]:
    if not isinstance(content, dict) or not {"features", "labels"} <= content.keys():
        raise BlipError(f"{where}: expected a dict of features and labels")
    try:
        images, labels = np.asarray(content["features"]), np.asarray(content["labels"])
    except ValueError:
        raise BlipError(f"{where}: expected features of one shape and as many labels, found a ragged list") from None
    if images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != images.shape[3] or images.dtype.kind not in "uif":
        raise BlipError(f"{where}: expected features of shape (n, 1, side, side), found {images.shape} {images.dtype}")
    whole = images.dtype.kind != "f" or np.array_equal(images, np.round(images))  # or they are in [0, 1]
    if images.size == 0 or not (whole and images.min() >= 0 and images.max() <= 255):
        raise BlipError(f"{where}: expected whole numbers from 0 to 255 as features")
    if labels.dtype.kind not in "uif" or not np.array_equal(labels, np.round(labels)):
        raise BlipError(f"{where}: expected whole numbers as labels")
    return images.astype(np.uint8), labels.reshape(-1).astype(np.int64)
