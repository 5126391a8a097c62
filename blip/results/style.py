"""What all figures share: fonts, and how each method is drawn, here as on the page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from blip.results.loading import Runs

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


class Look(NamedTuple):
    """How a method is drawn, wherever it is."""

    colour: str
    """On white."""
    on_dark: str
    """On a dark page."""
    marker: str
    """Of matplotlib."""
    dashes: tuple[float, ...]
    """Lengths of dashes and gaps, in line widths; none where the line is solid."""

    def line(self) -> dict[str, Any]:
        """As matplotlib's `plot` takes it."""
        return {"color": self.colour, "marker": self.marker, "linestyle": (0, self.dashes) if self.dashes else "-"}


SOLID, DASHED, DOTTED, MIXED = (), (4.0, 1.5), (1.2, 1.2), (4.0, 1.2, 1.2, 1.2)
LOOKS = {
    "blip": Look("#0f6ab8", "#44aad6", "o", SOLID),
    "ewc": Look("#e16809", "#ed833b", "p", DASHED),
    "imm-mode": Look("#604ac4", "#bb99fc", "^", DASHED),
    "lwf": Look("#09885a", "#2ad6a8", "P", DASHED),
    "si": Look("#a33d87", "#f9578b", "s", DASHED),
    "mas": Look("#8a6400", "#dac040", "<", DASHED),
    "hat": Look("#f143a2", "#e573cc", "X", SOLID),
    "packnet": Look("#664404", "#d39968", "D", SOLID),
    "gpm": Look("#009da2", "#89eefb", "v", SOLID),
    "sgd-frozen": Look("#89857e", "#9ebec8", "h", DOTTED),
    "sgd": Look("#a81934", "#ff4b4d", ">", DOTTED),
    "single-task": Look("#242323", "#fbfdfd", "8", DOTTED),
    "joint": Look("#091d6f", "#8182ed", "d", DOTTED),
}
"""Of the methods that are known, whatever else is shown: each is seen on its background, and what is close in colour to
colour-blind eyes differs in shape (tests/test_style.py). Solid lines are of methods that keep weights, or directions of
them, from changing, dashed ones of penalties, dotted ones of baselines and references."""
OTHERS = (("#6a8e39", "#a7ca59"), ("#aa79c6", "#d9b7fb"), ("#4f0001", "#ae4a42"))
"""Colours of methods that are not, in turn."""
OTHER_MARKERS = "*sPo^DvX<>phd8"


def method_looks(methods: Sequence[str]) -> dict[str, Look]:
    """How each method is drawn."""
    others = [method for method in methods if method not in LOOKS]
    made = {
        method: Look(*OTHERS[i % len(OTHERS)], OTHER_MARKERS[i % len(OTHER_MARKERS)], MIXED)
        for i, method in enumerate(others)
    }
    return {method: made.get(method) or LOOKS[method] for method in methods}


def sequence(n: int) -> list[Colour]:
    """`n` colours for things in an order (tasks, layers), light to dark; safe in greyscale."""
    colours: list[Colour] = sns.color_palette("crest", n)
    return colours


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of a colour in sRGB, in [0, 1] (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(colour: Sequence[float]) -> str:
    """White or black, whichever contrasts more with a colour: by 4.5:1 at least, whatever it is."""
    return "#ffffff" if 1.05 / (luminance(colour) + 0.05) > (luminance(colour) + 0.05) / 0.05 else "#000000"


def draw_spread(ax: Axes, seeds: Any, **line: Any) -> None:
    """A line of the means of `seeds`, values grouped by their place on the x axis, in a band from lowest to highest.

    Not of ± their standard deviation, which leaves what the measure can be: an accuracy has none above 100 %.
    """
    mean = seeds.mean()
    (drawn,) = ax.plot(mean.index, mean, **line)
    ax.fill_between(mean.index, seeds.min(), seeds.max(), color=drawn.get_color(), alpha=0.2, linewidth=0)


def band(runs: Runs) -> str:
    """What `draw_spread` draws of runs, in words."""
    seeds = runs.runs.groupby(["experiment", "method"]).size().max()
    return "Line: mean over seeds; band: from the lowest seed to the highest." if seeds > 1 else "Of one seed."


def percent(axis: Axis) -> None:
    """Ticks of a share, in percent, at round numbers."""
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6g} %")
