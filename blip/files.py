"""Files that are either whole or not there."""

import csv
import errno
import fcntl
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from blip.errors import BlipError

TEMPORARY = ".blip-tmp"
"""How the names of files end that are being written; they begin with a point. No other program's do."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path`, as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path` when the block ends well: a reader, or a crash, never sees half of it.

    Temporary file in the same folder, fsync, rename; where `path` is a link, what it leads to is replaced. Raises
    BlipError naming `path` when the file system refuses (full disk, no permission) and for a device or a pipe; nothing
    is left behind then, nor where the block raises. What killed processes have left in the folder is removed.
    """
    descriptor, temporary = -1, None
    try:
        target = regular(Path(os.path.realpath(path)))
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        descriptor, temporary = _temporary_file(target)
        yield temporary
        os.fsync(descriptor)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner reads
        temporary.replace(target)
    except OSError as error:
        raise BlipError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same of a folder, which is not there yet, or is empty."""
    make_folder(path.absolute().parent)
    remove_leftovers(path.absolute().parent)
    descriptor, temporary = _temporary_folder(path)
    try:
        made = temporary / path.name
        made.mkdir()
        yield made
        try:
            made.replace(path)
        except OSError as error:
            raise BlipError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


def _temporary_file(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, open, and locked for as long as it is: its process lives."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # taken for a leftover, between being made and being locked


def _temporary_folder(path: Path) -> tuple[int, Path]:
    """The same of a folder."""
    while True:
        try:
            temporary = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=TEMPORARY))
        except OSError as error:
            raise BlipError(f"{path}: cannot be written: {error.strerror}") from None
        with suppress(FileNotFoundError):  # taken for a leftover, between being made and being locked
            descriptor = os.open(temporary, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                return descriptor, temporary
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in a folder that no living process holds."""
    for path in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):  # held, gone meanwhile, another user's, or on a file system without locks
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def is_text(name: str) -> bool:
    """Whether a name of the file system is UTF-8; Python hands over other bytes in a form that cannot be written."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def regular(path: Path) -> Path:
    """Itself, if it is a file that ends, or is not there. Raises OSError for a pipe, a socket or a device."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises BlipError where it cannot be read."""
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise BlipError(f"{path}: cannot be read: {error.strerror}") from None


def matching(folder: Path, pattern: str) -> Iterator[Path]:
    """As `folder.glob(pattern)` without `**`, sorted; but OSError where a folder cannot be read: it may hold some."""
    first, _, rest = pattern.partition("/")
    for path in sorted(folder.iterdir()):
        if not fnmatchcase(path.name, first):
            continue
        if not rest:
            yield path
        elif path.is_dir():
            yield from matching(path, rest)


def expect_writable(folder: Path) -> None:
    """Raises BlipError where files could not be written to a folder that is there, or is to be made; makes nothing."""
    try:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise BlipError(f"{folder}: cannot be written: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises BlipError naming it where that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BlipError(f"{path}: cannot be written: {error.strerror}") from None


def make_writable_folder(path: Path) -> None:
    """The same, where files in it will be refused too."""
    make_folder(path)
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise BlipError(f"{path}: cannot be written: {error.strerror}") from None


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> str:
    """A CSV file's content, with a heading."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
