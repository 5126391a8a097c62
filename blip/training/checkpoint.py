"""Checkpoints: written atomically, read without running any code in them, held by one process at a time."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from blip.errors import BlipError
from blip.files import atomic_write, make_folder


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
        atomic_write(self.path, to_bytes(state))

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last state saved, or None. A damaged file is set aside, so that the next attempt starts afresh."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            return state
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged bytes surface as many kinds of exceptions
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            raise BlipError(
                f"{self.path}: damaged checkpoint ({type(error).__name__}), moved to {aside.name}; "
                "run again to start this run from its beginning"
            ) from None

    def remove(self) -> None:
        """Delete the folder once the run's results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def to_bytes(state: dict[str, Any]) -> bytes:
    """torch's file format in memory: the same state gives the same bytes, whatever the file is called."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
