"""Figures that everybody can read: colours for colour-blind eyes, and none that a colour alone tells apart."""

from itertools import combinations

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from blip.results.loading import METHOD_ORDER
from blip.results.style import LOOKS, MARKERS, OTHERS, Look, ink_on, luminance, method_looks, sequence

Colours = NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB looks like to such eyes.
EYES: dict[str, list[list[float]]] = {
    "most": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
ALIKE = ("op8h", "sDd", "^v<>", "PX*")
"""Markers that a glance does not tell apart: round ones, squares, triangles, stars."""
TOLD_APART, ALIKE_APART = 10.0, 20.0
"""In CIELAB, of any two methods, and of two with markers that are alike; 2.3 is just noticeable side by side."""
SEEN = 3.0
"""The contrast that WCAG 2 (1.4.11) asks of graphics."""
PAGES = {"light": "#fdfdfc", "dark": "#16181b"}
"""The page's backgrounds."""


def lab(rgb: Colours, eyes: str) -> Colours:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
    ratio = seen @ np.array(TO_XYZ).T / [0.95047, 1, 1.08883]
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def drawn() -> dict[str, Look]:
    """Methods that are known, and some that are not."""
    return method_looks([*METHOD_ORDER, *(f"method {i}" for i in range(len(OTHERS)))])


def colour(look: Look, scheme: str) -> tuple[float, float, float]:
    return to_rgb(look.on_dark if scheme == "dark" else look.colour)


def contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    low, high = sorted(luminance(c) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", PAGES)
@pytest.mark.parametrize("eyes", EYES)
def test_methods_are_told_apart(scheme: str, eyes: str) -> None:
    """By their colours, and where their markers are alike by colours that are far from each other."""
    looks = drawn()
    seen = dict(zip(looks, lab(np.array([colour(look, scheme) for look in looks.values()]), eyes), strict=True))
    for a, b in combinations(looks, 2):
        alike = any(looks[a].marker in kind and looks[b].marker in kind for kind in ALIKE)
        assert np.linalg.norm(seen[a] - seen[b]) > (ALIKE_APART if alike else TOLD_APART), (a, b)


@pytest.mark.parametrize("scheme", PAGES)
def test_methods_are_seen_on_the_page(scheme: str) -> None:
    style = (ROOT / "blip/results/templates/page.css").read_text()
    assert f"--page: {PAGES[scheme]};" in style
    for name, look in drawn().items():
        assert contrast(colour(look, scheme), to_rgb(PAGES[scheme])) >= SEEN, name


def test_every_method_has_a_marker_of_its_own_for_prints_in_grey() -> None:
    assert set(LOOKS) == set(METHOD_ORDER)
    markers = [look.marker for look in LOOKS.values()]
    assert len(set(markers)) == len(markers)
    assert set("".join(ALIKE)) >= {look.marker for look in drawn().values()}
    assert len(set(MARKERS)) == len(MARKERS)


def test_a_method_is_drawn_alike_whatever_else_is_shown() -> None:
    alone, among = method_looks(["hat"]), method_looks(["my-way", "hat", "sgd"])
    assert alone["hat"] == among["hat"] == LOOKS["hat"]
    many = method_looks([f"method {i}" for i in range(40)])
    assert len({(look.colour, look.marker) for look in many.values()}) == len(many)


def test_numbers_are_read_on_every_colour() -> None:
    for shade in [*sequence(10), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), *np.random.default_rng(0).random((200, 3))]:
        assert contrast(tuple(shade), to_rgb(ink_on(shade))) >= 4.5


def test_what_has_an_order_goes_from_light_to_dark() -> None:
    lightness = lab(np.array(sequence(10)), "most")[:, 0]
    assert (np.diff(lightness) < -2).all()
