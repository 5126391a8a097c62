"""What a setting does, at a glance: accuracy, forgetting and capacity against its values."""

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from blip.record import short_key, short_value
from blip.results.ablations import ablation, is_number, settings_of
from blip.results.loading import Runs, method_order
from blip.results.metrics import run_metrics, score_name
from blip.results.style import CAPTION, MARKERS, Colour, draw_spread, percent

LOGARITHMIC = 50.0
"""An axis is, from this ratio of its ends on."""
MOST_TICKS = 12


def draw_ablation(runs: Runs, beside: Runs | None, colours: dict[str, Colour]) -> Figure:
    """Accuracy, forgetting and capacity of one group of `runs` against its first varied setting.

    A line for each method, and of further settings each combination; seeds are a band. Other methods in the runs of the
    experiment as it is without (`beside`) are level lines.
    """
    frame = ablation(runs)
    panels = {"acc": f"average {score_name(runs)}", "forgetting": "forgetting", "capacity": "capacity used"}
    panels = {measure: label for measure, label in panels.items() if frame[measure].notna().any()}
    figure = Figure(figsize=(2.7 * len(panels) + 0.9, 2.6))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    key, *others = settings_of(frame)
    lines = _lines(frame, others)
    level = _levels(beside, frame)
    for ax, (measure, label) in zip(axes, panels.items(), strict=True):
        places = _axis(ax, frame[key])
        for (name, part), marker in zip(lines.items(), cycle(MARKERS)):
            shade = 0.45 + 0.55 * (1 + list(lines).index(name)) / len(lines) if others else 1.0
            _draw(ax, part, places, measure, name, marker, tuple(shade * c for c in colours[part["method"].iloc[0]]))
        for method, dashes in zip(level.index, cycle([(4, 2), (1, 1.5), (6, 1, 1, 1)])):
            if pd.notna(level.loc[method, measure]):
                shown = level.loc[method, measure]
                ax.axhline(shown, color=colours[method], dashes=dashes, linewidth=1.2, label=method, zorder=1)
        ax.set(xlabel=short_key(key), title=label)
        percent(ax.yaxis)
    handles = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=7)
    seeds = frame.groupby(["experiment", "method"]).size()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    text = f"Mean over {count} seeds; band or whisker: ± standard deviation."
    if len(level):
        text += f" Level lines: other methods on {next(iter(runs.variants.values())).of}, which lack the setting."
    figure.supxlabel(text, **CAPTION)
    return figure


def _lines(frame: pd.DataFrame, others: list[str]) -> dict[str, pd.DataFrame]:
    """What one line shows, by its name."""
    names = frame["method"].astype(str)
    for key in others:
        names = names + f", {short_key(key)} " + frame[key].map(short_value)
    return {name: frame[names == name] for name in dict.fromkeys(names)}


def _levels(beside: Runs | None, frame: pd.DataFrame) -> pd.DataFrame:
    """Mean measures of the methods that the varied runs are none of, by method."""
    if beside is None:
        return pd.DataFrame()
    means = run_metrics(beside).drop(columns=["experiment", "seed"]).groupby("method").mean()
    return means.loc[[method for method in method_order(means.index) if method not in set(frame["method"])]]


def _axis(ax: Axes, values: "pd.Series[Any]") -> dict[str, float]:
    """Put a setting's values on the axis: their places, by the text of each."""
    ordered = {short_value(value): value for value in values}
    if not is_number(values):
        size = 8 if max(map(len, ordered)) * len(ordered) < 40 else 6
        ax.set_xticks(range(len(ordered)), list(ordered), size=size, rotation=0 if size == 8 else 60)
        ax.set_xlim(-0.5, len(ordered) - 0.5)
        return {text: float(place) for place, text in enumerate(ordered)}
    if min(ordered.values()) > 0 and max(ordered.values()) / min(ordered.values()) >= LOGARITHMIC:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if len(ordered) <= MOST_TICKS:
        ax.set_xticks([float(value) for value in ordered.values()], list(ordered), size=7)
        ax.xaxis.set_minor_locator(NullLocator())
    return {text: float(value) for text, value in ordered.items()}


def _draw(
    ax: Axes, part: pd.DataFrame, places: dict[str, float], measure: str, name: str, marker: str, colour: Any
) -> None:
    key = settings_of(part)[0]
    by_place = part.assign(place=part[key].map(lambda value: places[short_value(value)])).groupby("place")[measure]
    if not by_place.count().any():
        return
    if is_number(part[key]):
        draw_spread(ax, by_place, colour, marker=marker, markersize=4, markeredgewidth=0, label=name)
    else:  # values without an order: nothing lies between two of them
        mean, std = by_place.mean(), by_place.std().fillna(0)
        ax.errorbar(mean.index, mean, std, fmt=marker, color=colour, markersize=4, capsize=2, linewidth=1, label=name)
