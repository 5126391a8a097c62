"""Checkpoints: written atomically, read without running any code in them, held by one process at a time.

A file is a line that names it and the SHA-256 of what follows: torch's file format. So what is damaged is known from
the content, and nothing else that goes wrong while reading is taken for damage.
"""

import hashlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from blip.errors import BlipError, printable
from blip.files import atomic_write, make_folder, read_bytes

MAGIC = b"blip checkpoint 1 "


class Checkpoint:
    """The checkpoint of one run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkpoint.pt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while a run trains, so that a second process does not write into it.

        Raises BlipError where another process holds it: after its parent was killed, a trainer may live on.
        """
        make_folder(self.folder)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BlipError(f"{self.folder}: another process is training this run") from None
        except OSError as error:
            raise BlipError(f"{self.folder}: cannot be written: {error.strerror}") from None
        with lock:
            yield

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state`: nested dicts and lists of tensors, numbers and strings."""
        content = to_bytes(state)
        atomic_write(self.path, _header(content) + content)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last state saved, or None.

        Raises BlipError. A file whose content shows damage is set aside, so that the next attempt starts afresh; after
        any other error it stays where it is.
        """
        if not self.path.exists():
            return None
        header, _, content = read_bytes(self.path).partition(b"\n")
        if header + b"\n" != _header(content):
            self._set_aside()
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            return state
        except Exception as error:  # not of the file: too little memory, say
            reason = printable((str(error).splitlines() or [""])[0].strip())
            raise BlipError(
                f"{self.path}: cannot be loaded ({type(error).__name__}: {reason}); it is not damaged and stays: run "
                "again, or delete it to start this run from its beginning"
            ) from error

    def _set_aside(self) -> None:
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
        except OSError as error:
            raise BlipError(
                f"{self.path}: damaged checkpoint, which cannot be moved away ({error.strerror}): delete it to start "
                "this run from its beginning"
            ) from None
        raise BlipError(
            f"{self.path}: damaged checkpoint (not its checksum), moved to {aside.name}; "
            "run again to start this run from its beginning"
        )

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around what puts a loaded state to use. Raises BlipError where that is of another structure."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise BlipError(
                f"{self.path}: a checkpoint of another structure, of another version of the code "
                f"({type(error).__name__}): delete {self.folder} to start this run from its beginning"
            ) from error

    def remove(self) -> None:
        """Delete the folder once the run's results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _header(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"


def to_bytes(state: dict[str, Any]) -> bytes:
    """torch's file format in memory: the same state gives the same bytes, whatever the file is called."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
