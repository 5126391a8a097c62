"""Files of numbers computed with the published implementation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / "shared" / "golden"


def load(variable: str, name: str) -> dict[str, Tensor]:
    """Arrays by key from the file that an environment variable names, or else from ../shared/golden/`name`.

    Skips the module where neither is there.
    """
    path = Path(os.environ.get(variable, FOLDER / name))
    if variable not in os.environ and not path.exists():
        pytest.skip(f"set {variable} to a {name} to run these", allow_module_level=True)
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
