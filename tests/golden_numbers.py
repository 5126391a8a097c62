"""Files of numbers computed with the published implementation."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent / "golden"
"""Made by make_golden.py, from commit c09814d of the published code."""
SHARED = Path(__file__).parents[2] / "shared" / "golden"


def load(variable: str, name: str) -> dict[str, Tensor]:
    """Arrays by `case/name` from the file that an environment variable names, or else from golden/`name`.

    Where ../shared/golden has one of that name, its cases are among them.
    """
    if variable in os.environ:
        return _read(Path(os.environ[variable]))
    shared = _read(SHARED / name) if (SHARED / name).exists() else {}
    return _read(HERE / name) | {f"shared {key}": value for key, value in shared.items()}


def _read(path: Path) -> dict[str, Tensor]:
    with np.load(path) as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def layer_of(shape: tuple[int, ...]) -> nn.Module:
    """A linear or convolution layer with weights of `shape`."""
    out_channels, in_channels, *kernel = shape
    if not kernel:
        return nn.Linear(in_channels, out_channels)
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    return convolution(in_channels, out_channels, tuple(kernel))
