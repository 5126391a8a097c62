"""Where the capacity goes: frozen bits by layer and task, and by the size of the weights."""

from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from blip.results.loading import KEYS, Runs, method_order
from blip.results.metrics import capacity
from blip.results.style import CAPTION, MARKERS, band, draw_spread, percent, sequence

MOST_BESIDE = 4
"""Panels in a row."""


def draw_capacity(runs: Runs) -> Figure | None:
    """Share of each layer's bits that are frozen after each task, and of the whole network's; None without any."""
    if "bits" not in runs.tables:
        return None
    bits = runs.tables["bits"]
    methods, layers = method_order(bits["method"]), list(dict.fromkeys(bits["layer"]))
    figure, axes = plt.subplots(
        1, len(methods), figsize=(0.9 + 3.2 * len(methods), 2.7), sharex=True, sharey=True, squeeze=False
    )
    for ax, method in zip(axes[0], methods, strict=True):
        mine = bits[bits["method"] == method]
        for layer, marker, colour in zip(layers, cycle(MARKERS), sequence(len(layers)), strict=False):
            part = mine[mine["layer"] == layer]
            shares, size = _by_tasks(part), int(part.groupby([*KEYS, "task_learned"])["parameters"].sum().max())
            every, label = max(1, shares.ngroups // 12), f"{layer} ({size:,})"
            draw_spread(ax, shares, color=colour, marker=marker, markevery=every, markersize=3.5, label=label)
        ax.plot(_by_tasks(mine).mean(), color="k", linestyle="--", linewidth=1.2, label="all")
        ax.set(title=method if len(methods) > 1 else "", xlabel="tasks learned", ylim=(0, 1.02))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes[0, 0].set_ylabel("bits frozen")
    percent(axes[0, 0].yaxis)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "layer (parameters)"
    figure.legend(handles, labels, loc="outside right center", fontsize=7, title=title, title_fontsize=7)
    figure.supxlabel(f"Of all bits of a layer. {band(runs)}", **CAPTION)
    return figure


def _by_tasks(bits: pd.DataFrame) -> Any:
    """The shares of all seeds, grouped by the number of tasks learned."""
    return capacity(bits).groupby(lambda place: place[-1] + 1)


def draw_sizes(runs: Runs) -> Figure | None:
    """Frozen bits of the traced weights against their size, by layer and task; None where none was traced.

    Of the first method that traced any, all its seeds.
    """
    if "trace" not in runs.tables:
        return None
    trace = runs.tables["trace"]
    trace = trace[trace["method"] == method_order(trace["method"])[0]]
    trace = trace.assign(size=trace["value"].abs() / trace["bound"])
    layers = list(dict.fromkeys(trace["layer"]))
    rows, columns = -(-len(layers) // MOST_BESIDE), min(len(layers), MOST_BESIDE)
    size = (1.2 + 2.8 * columns, 0.7 + 2.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    smallest = trace.loc[trace["size"] > 0, "size"].min()
    zero = (smallest if pd.notna(smallest) else 0.5) / 4
    tasks = sorted(trace["task_learned"].unique())
    for ax, layer in zip(axes.flat, layers, strict=False):
        for task, colour in zip(tasks, sequence(len(tasks)), strict=True):
            part = trace[(trace["layer"] == layer) & (trace["task_learned"] == task)]
            x = part["size"].where(part["size"] > 0, zero)
            ax.scatter(x, part["frozen_bits"], 9, color=[colour], linewidths=0, label=f"{task + 1}")
        bits = range(int(trace["max_bits"].max()) + 1)
        ax.plot([2.0**-k for k in bits], bits, color="0.4", linestyle=":", linewidth=1)
        ax.set_title(layer)
    _axes_of_sizes(axes.flat[0], zero)
    for ax in axes.flat[len(layers) :]:
        ax.set_visible(False)
    figure.supylabel("frozen bits", size=9)
    _legend_of_tasks(figure, axes.flat[0])
    text = "A dot: a traced weight after a task, by its size as a share of its range.\n"
    figure.supxlabel(text + "Dotted: the smallest number other than 0 that so many bits can write.", **CAPTION)
    return figure


def _axes_of_sizes(ax: Axes, zero: float) -> None:
    """Powers of two, and 0 at the left end."""
    ax.set(xscale="log", xlim=(zero / 1.6, 1.6))
    ticks = [share for share in (1.0, *(2.0**-k for k in range(4, 25, 4))) if share >= zero * 3]
    names = [f"1/{round(1 / share):,}" if share < 1 else "1" for share in ticks]
    ax.xaxis.set_major_locator(FixedLocator([zero, *ticks]))
    ax.xaxis.set_major_formatter(FixedFormatter(["0", *names]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _legend_of_tasks(figure: Figure, ax: Axes) -> None:
    """At most about ten of the dots' colours."""
    handles, labels = ax.get_legend_handles_labels()
    shown = sorted({*range(0, len(handles), -(-len(handles) // 10)), len(handles) - 1})
    few = [handles[i] for i in shown], [labels[i] for i in shown]
    figure.legend(*few, loc="outside right center", fontsize=7, title="after task", title_fontsize=7)
