"""Copies of finished run folders: where a workflow deletes the results of several runs, those that stand come back."""

import hashlib
from functools import cache
from pathlib import Path

from blip.config import fingerprint
from blip.files import atomic_write


class KeptRun:
    """The copy of one finished run below `folder`, under a name of its configuration, its data and this code.

    Code is in the name so that a run forced anew after a change of the library is really trained.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / fingerprint([key, _code()])

    def restore(self, run: Path) -> bool:
        """Write the run folder `run` from the copy; False where there is none."""
        if not (self.folder / "accuracy.csv").exists():
            return False
        _copy(self.folder, run)
        return True

    def store(self, run: Path) -> None:
        """Make the copy."""
        _copy(run, self.folder)


def _copy(source: Path, target: Path) -> None:
    """Every file of a run folder, `accuracy.csv` last: as in a run folder itself, it says that the others are there."""
    for path in sorted(source.iterdir(), key=lambda path: path.name == "accuracy.csv"):
        atomic_write(target / path.name, path.read_bytes())


@cache
def _code() -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
