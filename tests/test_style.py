"""Figures that everybody can read: colours for colour-blind eyes, and none that a colour alone tells apart."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from blip.results.loading import METHOD_ORDER
from blip.results.style import MARKERS, method_colours, sequence

Colours = NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB looks like to such eyes.
EYES: dict[str, list[list[float]]] = {
    "most": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
TOLD_APART = 12.0
"""In CIELAB; 2.3 is just noticeable side by side."""


def lab(rgb: Colours, eyes: str) -> Colours:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
    ratio = seen @ np.array(TO_XYZ).T / [0.95047, 1, 1.08883]
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("eyes", EYES)
def test_methods_are_told_apart(eyes: str) -> None:
    colours = method_colours(METHOD_ORDER)
    seen = dict(zip(colours, lab(np.array(list(colours.values())), eyes), strict=True))
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > TOLD_APART, (a, b)


def test_every_method_has_a_marker_of_its_own_for_prints_in_grey() -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= len(METHOD_ORDER)


def test_what_has_an_order_goes_from_light_to_dark() -> None:
    lightness = lab(np.array(sequence(10)), "most")[:, 0]
    assert (np.diff(lightness) < -2).all()
