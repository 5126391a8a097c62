"""What all figures share: fonts, colours, panels, captions."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from blip.results.runs import METHOD_ORDER

Colour = tuple[float, float, float]

STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper", rc={"axes.linewidth": 0.8, "axes.titlesize": 9}),
    **{f"{axis}tick.{kind}.width": 0.8 for axis in "xy" for kind in ("major", "minor")},
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "DejaVu Sans",
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text that can be searched and edited
}
# Indices in seaborn's "colorblind" palette: those of METHOD_ORDER, then what others take in turn.
PALETTE = (0, 1, 2, 4, 9, 3, 7, 5, 6, 8)


def method_colours(methods: Sequence[str]) -> dict[str, Colour]:
    """A colour for each method; those in METHOD_ORDER keep theirs whatever else is shown."""
    palette = sns.color_palette("colorblind")
    others = [method for method in methods if method not in METHOD_ORDER]
    return {method: palette[PALETTE[i % len(PALETTE)]] for i, method in enumerate([*METHOD_ORDER, *others])}


def sequence(n: int) -> list[Colour]:
    """`n` colours for things in an order (tasks, layers), light to dark; safe in greyscale."""
    return list(sns.color_palette("crest", n))


def panels(names: Sequence[str], width: float, height: float) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel per name, at most three in a row, all with the same axes.

    `width` and `height` of a panel in inches. Built without pyplot: no display is ever asked for.
    """
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(columns * width, rows * height))
    FigureCanvasAgg(figure)
    axes: dict[str, Axes] = {}
    for position, name in enumerate(names):
        shared = next(iter(axes.values()), None)
        ax = figure.add_subplot(rows, columns, position + 1, sharex=shared, sharey=shared)
        ax.set_title(name)
        axes[name] = ax
    return figure, axes


def label(axes: dict[str, Axes], x: str, y: str) -> None:
    """Axis labels and numbers at the left and below the lowest panels only."""
    for position, ax in enumerate(axes.values()):
        lowest, leftmost = position + 3 >= len(axes), position % 3 == 0
        ax.set(xlabel=x if lowest else "", ylabel=y if leftmost else "")
        ax.tick_params(labelbottom=lowest, labelleft=leftmost, which="both")


def add_caption(figure: Figure, text: str) -> None:
    """A small line of explanation below the figure."""
    figure.supxlabel(text, x=0.01, ha="left", size=7, color="0.3")
