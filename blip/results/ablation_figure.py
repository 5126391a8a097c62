"""What a setting does, at a glance: accuracy, forgetting and capacity against its values."""

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from blip.record import are_numbers, short_key, short_value
from blip.results.ablations import ablation, settings_of
from blip.results.loading import Runs, method_order
from blip.results.metrics import run_metrics, score_name
from blip.results.style import CAPTION, MARKERS, Look, draw_spread, percent

LOGARITHMIC = 50.0
"""An axis is, from this ratio of its ends on."""
MOST_TICKS = 12


def draw_ablation(runs: Runs, beside: Runs | None, looks: dict[str, Look]) -> Figure:
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
    styles = _styles(lines, looks, shaded=bool(others))
    level = _levels(beside, frame)
    for ax, (measure, label) in zip(axes, panels.items(), strict=True):
        places = _axis(ax, frame[key])
        for name, part in lines.items():
            _draw(ax, part, places, measure, name, styles[name])
        for method in level.index:
            if pd.notna(level.loc[method, measure]):
                line = looks[method].line() | {"marker": ""}
                ax.axhline(level.loc[method, measure], **line, linewidth=1.2, label=method, zorder=1)
        ax.set(xlabel=short_key(key), title=label)
        percent(ax.yaxis)
    handles = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=7)
    seeds = frame.groupby(["experiment", "method"]).size()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    several = f"Mean over {count} seeds; band or whisker: from the lowest to the highest."
    text = several if seeds.max() > 1 else "Of one seed."
    if len(level):
        lacked = all(name.startswith("methods.") for name in (key, *others))
        which = ", which lack the setting" if lacked else " as it is, without another value"
        text += f" Level lines: other methods on {next(iter(runs.variants.values())).of}{which}."
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
    if not are_numbers(values):
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


def _styles(lines: dict[str, pd.DataFrame], looks: dict[str, Look], *, shaded: bool) -> dict[str, dict[str, Any]]:
    """How each line is drawn: as its method, or where there are several of one in shades of its colour."""
    styles = {name: looks[part["method"].iloc[0]].line() for name, part in lines.items()}
    if shaded:
        for i, (name, marker) in enumerate(zip(styles, cycle(MARKERS), strict=False), start=1):
            shade = 0.45 + 0.55 * i / len(lines)
            dark = tuple(shade * c for c in to_rgb(styles[name]["color"]))
            styles[name] |= {"color": dark, "marker": marker}
    return styles


def _draw(
    ax: Axes, part: pd.DataFrame, places: dict[str, float], measure: str, name: str, style: dict[str, Any]
) -> None:
    key = settings_of(part)[0]
    by_place = part.assign(place=part[key].map(lambda value: places[short_value(value)])).groupby("place")[measure]
    if not by_place.count().any():
        return
    if are_numbers(part[key]):
        draw_spread(ax, by_place, **style, markersize=4, markeredgewidth=0, label=name)
    else:  # values without an order: nothing lies between two of them
        mean = by_place.mean()
        around = [mean - by_place.min(), by_place.max() - mean]
        alone = style | {"linestyle": "", "markersize": 4, "capsize": 2, "elinewidth": 1}
        ax.errorbar(mean.index, mean, around, **alone, label=name)
