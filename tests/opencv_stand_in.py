"""What Stable-Baselines3's wrappers need of OpenCV, where it is not installed."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray


@cache
def overlaps(inputs: int, outputs: int) -> NDArray[np.float64]:
    """Share of each input pixel in each output pixel, (outputs, inputs): OpenCV's INTER_AREA for one side."""
    edges = np.arange(outputs + 1) * inputs / outputs
    pixels = np.arange(inputs)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(shared, 0) * outputs / inputs


def area_resize(image: NDArray[np.uint8], size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    height, width = image.shape
    resized = overlaps(height, size[1]) @ image @ overlaps(width, size[0]).T
    return np.rint(resized).astype(np.uint8)


def grey(image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    return np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


@pytest.fixture
def opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two functions of OpenCV that SB3's wrappers call."""
    from stable_baselines3.common import atari_wrappers

    if atari_wrappers.cv2 is None:
        stand_in = SimpleNamespace(cvtColor=grey, resize=area_resize, COLOR_RGB2GRAY=0, INTER_AREA=0)
        monkeypatch.setattr(atari_wrappers, "cv2", stand_in)
