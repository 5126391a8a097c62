"""Colours of the page, in a light and in a dark scheme: those of the figures, as far as they are seen."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.colors import to_hex

from blip.results.style import Colour, method_colours

DARK_PAGE: Colour = (0.086, 0.094, 0.106)
"""Background of the page where the reader's scheme is dark."""
HEAT_STEPS = 12
"""Colours of a heat map, from low to high."""


def on_dark(colour: Colour) -> Colour:
    """A colour as it is shown on a dark page: itself where it is seen there, otherwise with as much white as it takes.

    Seen is a contrast of 3:1, which WCAG 2 (1.4.11) asks of graphics.
    """
    for white in range(0, 101, 5):
        mixed = tuple(c + (1 - c) * white / 100 for c in colour)
        if (luminance(mixed) + 0.05) / (luminance(DARK_PAGE) + 0.05) >= 3:
            break
    return mixed[0], mixed[1], mixed[2]


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of a colour in sRGB, in [0, 1] (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(colour: Sequence[float]) -> str:
    """White or black, whichever contrasts more with a colour."""
    return "#ffffff" if 1.05 / (luminance(colour[:3]) + 0.05) > (luminance(colour[:3]) + 0.05) / 0.05 else "#000000"


def page_colours(methods: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """CSS variables of the page in light and in dark: --m0, … of the methods, --h0, … of heat maps from low to high,
    --n0, … of numbers on those."""
    colours = method_colours(methods)
    light = {f"--m{i}": to_hex(colours[method]) for i, method in enumerate(methods)}
    dark = {f"--m{i}": to_hex(on_dark(colours[method])) for i, method in enumerate(methods)}
    for variables, name, low, high in ((light, "YlGnBu", 0.04, 0.92), (dark, "mako", 0.2, 0.95)):
        steps = (mpl.colormaps[name](low + (high - low) * i / (HEAT_STEPS - 1)) for i in range(HEAT_STEPS))
        for i, step in enumerate(steps):
            variables |= {f"--h{i}": to_hex(step), f"--n{i}": ink_on(step)}
    return light, dark
