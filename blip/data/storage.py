"""This project's own data files: named tensors and a description, in safetensors (no code in them, read by mapping)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip.data.dataset import DatasetRecord
from blip.data.description import SourceConfig
from blip.errors import BlipError
from blip.files import atomic_path, regular
from blip.schema import validate


def file_bytes(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """The content of a data file: the same tensors and description give the same bytes."""
    content: bytes = safetensors.torch.save(_contiguous(tensors), _metadata(about))
    return content


def dataset_path(prepared: Path, source: SourceConfig) -> Path:
    """Where the data set of a source lies; of class folders also by the size that images were resized to."""
    size = f"-{source.side}x{source.side}x{source.channels or 3}" if source.folder else ""
    return dataset_file(prepared, source.name + size)


def dataset_file(prepared: Path, dataset: str) -> Path:
    """The same by the data set's own name, or for a wildcard in its place."""
    return prepared / f"{dataset}.safetensors"


def croissant_path(path: Path) -> Path:
    """Where the description of a data set's file lies."""
    return path.with_suffix(".croissant.json")


def write_dataset(path: Path, tensors: dict[str, Tensor], record: DatasetRecord) -> None:
    """Write a data set's file, atomically, with the checksum of its content; its description in Croissant, which has
    the old file's, is removed.
    """
    record = record.model_copy(update={"content": content_checksum(tensors, record)})
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(_contiguous(tensors), temporary, _metadata(record.model_dump(mode="json")))
        except SafetensorError as error:
            raise BlipError(f"{path}: cannot be written: {error}") from None
    croissant_path(path).unlink(missing_ok=True)
    _verified.add(_version(path))


def read_dataset(path: Path) -> tuple[dict[str, Tensor], DatasetRecord]:
    """What `write_dataset` wrote.

    The content is summed up once for each process. Raises BlipError where it is not the one that was written.
    """
    tensors, about = read_tensors(path)
    again = "delete it and prepare the data again"
    if not isinstance(about, dict) or "content" not in about:
        raise BlipError(f"{path}: has no checksum, as data sets of earlier versions: {again}")
    record = validate(DatasetRecord, about, str(path))
    if _version(path) not in _verified:
        if content_checksum(tensors, record) != record.content:
            raise BlipError(f"{path}: damaged or altered (its content has not the checksum that it names): {again}")
        _verified.add(_version(path))
    return tensors, record


_verified: set[tuple[str, int, int, int]] = set()
"""Versions of files whose content this process has summed up."""


def _version(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns


def content_checksum(tensors: dict[str, Tensor], record: DatasetRecord) -> str:
    """See `DatasetRecord.content`."""
    parts = record.model_dump(mode="json", exclude={"content", "raw"}, exclude_unset=True)
    if record.folder and Path(record.folder).is_absolute():
        parts["folder"] = Path(record.folder).name  # as in a run's configuration
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.numpy().data.cast("B"))
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a data file. Raises BlipError where it is missing or not one."""
    try:
        with safe_open(regular(path), "pt") as file:
            about = json.loads(file.metadata()["about"])
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError:
        raise BlipError(f"{path}: missing: prepare the data first") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BlipError(f"{path}: damaged ({error}): delete it and prepare the data again") from None


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def _metadata(about: dict[str, Any]) -> dict[str, str]:
    # One entry, since safetensors does not promise an order among several: same content, same bytes.
    return {"about": json.dumps(about, sort_keys=True)}
