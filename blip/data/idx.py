"""IDX files, the form in which MNIST and Fashion-MNIST are published."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from blip.data.dataset import Images
from blip.errors import BlipError
from blip.files import regular

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def read_idx(path: Path, checksum: str, of: Literal["sha256 unpacked", "md5 packed"]) -> Images:
    """The array in an IDX file of unsigned bytes, plain or gzipped.

    `checksum` is of what the publisher names one of: the unpacked content, or the gzipped file. Raises BlipError where
    the file is damaged or another one.
    """
    try:
        packed = regular(path).read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise BlipError(f"{path}: damaged or unreadable: {error}") from None
    if of == "md5 packed":
        what, found = "file", hashlib.md5(packed, usedforsecurity=False).hexdigest()
    else:
        what, found = "unpacked file", hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise BlipError(
            f"{path}: checksum of the {what} is {found[:12]}…, expected {checksum[:12]}…: "
            "damaged or another file; delete it and fetch it again"
        )
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy()
