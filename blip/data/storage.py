"""This project's own data files: named tensors and a description, in safetensors (no code in them, read by mapping)."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip.errors import BlipError
from blip.files import atomic_path


def to_bytes(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """The content of a data file: the same tensors and description give the same bytes."""
    content: bytes = safetensors.torch.save(_contiguous(tensors), _metadata(about))
    return content


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a data file, atomically."""
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(_contiguous(tensors), temporary, _metadata(about))
        except SafetensorError as error:
            raise BlipError(f"{path}: cannot be written: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a data file. Raises BlipError where it is missing or not one."""
    try:
        with safe_open(path, "pt") as file:
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
