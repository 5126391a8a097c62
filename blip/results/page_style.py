"""Colours and shapes of the page, in a light and in a dark scheme: those of the figures."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from blip.results.style import ink_on, method_looks

HEAT_STEPS = 12
"""Colours of a heat map, from low to high."""
SVG = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
"""Commands of a path."""


def page_colours(methods: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """CSS variables of the page in light and in dark: --m0, … of the methods, --h0, … of heat maps from low to high,
    --n0, … of numbers on those."""
    looks = method_looks(methods)
    light = {f"--m{i}": looks[method].colour for i, method in enumerate(methods)}
    dark = {f"--m{i}": looks[method].on_dark for i, method in enumerate(methods)}
    for variables, name, low, high in ((light, "YlGnBu", 0.04, 0.92), (dark, "mako", 0.2, 0.95)):
        steps = (mpl.colormaps[name](low + (high - low) * i / (HEAT_STEPS - 1)) for i in range(HEAT_STEPS))
        for i, step in enumerate(steps):
            variables |= {f"--h{i}": to_hex(step), f"--n{i}": ink_on(step)}
    return light, dark


def outline(marker: str) -> str:
    """A marker of matplotlib as a path of SVG between about -1 and 1, as Vega takes a shape too."""
    style = MarkerStyle(marker)
    segments = style.get_path().transformed(style.get_transform()).iter_segments()
    parts = []
    for points, command in segments:
        places = (points.reshape(-1, 2) * (2, -2)).ravel().round(3) + 0.0  # matplotlib's are within ± 1/2, upwards
        parts.append(SVG[command] + ",".join(f"{x:g}" for x in places) if command in SVG else "Z")
    return "".join(parts)
