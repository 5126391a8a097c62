"""What all figures share: fonts and colours."""

from collections.abc import Sequence
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from blip.results.loading import METHOD_ORDER

Colour = tuple[float, float, float]

STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titley": 1.0,  # there is nothing above the axes: matplotlib would look for it in every drawing
    "backend": "agg",  # where pyplot has none yet: no display is ever asked for
    "font.family": "DejaVu Sans",
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,  # names are shown as they are
    "pdf.fonttype": 42,  # text that can be searched and edited
}
CAPTION = {"x": 0.01, "ha": "left", "size": 7, "color": "0.3"}
"""A small line of explanation below a figure, as its `supxlabel`."""

MARKERS = "os^DvPX<>p*hd"
"""Of lines in turn, so that they differ without their colours."""

PALETTE = (0, 1, 2, 4, 16, 44, 35, 28, 10, 9, 3, 17, 15, 5, 6, 7, 8, 12)
"""Indices in `PALETTES`, ten each: those of METHOD_ORDER, which differ for colour-blind eyes, then what others take."""
PALETTES = ("colorblind", "dark", "deep", "muted", "bright")
"""Of seaborn."""


def method_colours(methods: Sequence[str]) -> dict[str, Colour]:
    """A colour for each method; those in METHOD_ORDER keep theirs whatever else is shown."""
    palette = [colour for name in PALETTES for colour in sns.color_palette(name)]
    others = [method for method in methods if method not in METHOD_ORDER]
    return {method: palette[PALETTE[i % len(PALETTE)]] for i, method in enumerate([*METHOD_ORDER, *others])}


def sequence(n: int) -> list[Colour]:
    """`n` colours for things in an order (tasks, layers), light to dark; safe in greyscale."""
    colours: list[Colour] = sns.color_palette("crest", n)
    return colours


def draw_spread(ax: Axes, seeds: Any, colour: Colour, **line: Any) -> None:
    """A line of the means of `seeds`, values grouped by their place on the x axis, in a band of ± their deviation."""
    mean, std = seeds.mean(), seeds.std().fillna(0)
    ax.plot(mean.index, mean, color=colour, **line)
    ax.fill_between(mean.index, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


def percent(axis: Axis) -> None:
    """Ticks of a share, in percent, at round numbers."""
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6g} %")
