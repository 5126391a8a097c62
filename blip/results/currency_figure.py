"""Accuracy against all bits that a method needs, task by task, all methods in one plot."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from blip.results.currency import bits_needed, left_out
from blip.results.loading import Runs
from blip.results.metrics import score_name
from blip.results.style import CAPTION, Look, percent

LARGE = 7.0
"""Of the marker after the last task."""


def draw_currency(runs: Runs, looks: dict[str, Look]) -> Figure | None:
    """Mean score on the tasks so far against bits of weights and method, a line from the first task to the last.

    Hollow where consolidated weights are written in their frozen bits alone. None where there are no such runs.
    """
    needed = bits_needed(runs)
    if needed.empty or needed["score"].isna().all():
        return None
    needed = needed.assign(written=needed["frozen"] + needed["method_bits"])
    figure = Figure(figsize=(5.4, 3.2))
    ax = figure.subplots()
    methods = [method for method in runs.methods() if method in set(needed["method"])]
    for method in methods:
        means = needed[needed["method"] == method].groupby("task_learned")[["score", "needed", "written"]].mean()
        _draw(ax, means["needed"], means["score"], method, looks[method].line())
        if means["written"].notna().any():
            hollow = looks[method].line() | {"markerfacecolor": "white", "alpha": 0.7}
            _draw(ax, means["written"], means["score"], f"{method}, weights in frozen bits", hollow)
    ax.set(xscale="log", xlabel="bits needed: weights and what the method keeps")
    ax.set_ylabel(f"{score_name(runs)}, {runs.score.task}s so far")
    percent(ax.yaxis)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside right center", fontsize=7)
    text = f"Mean over seeds. A dot for each {runs.score.task} learned; large: after the last one.{left_out(runs)}"
    figure.supxlabel(text, **CAPTION)
    return figure


def _draw(ax: Axes, bits: "pd.Series[float]", score: "pd.Series[float]", name: str, line: dict[str, Any]) -> None:
    ax.plot(bits, score, linewidth=1, markersize=2.5, label=name, **line)
    ax.plot(bits.iloc[-1:], score.iloc[-1:], markersize=LARGE, **line | {"linestyle": ""})
