"""Figures of each experiment, as PDF and PNG; the same runs give the same bytes.

A method has one colour, marker and dash in all figures, safe for colour-blind readers. Tasks are counted from 1, as
readers do.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from blip.errors import BlipError
from blip.files import atomic_write
from blip.results.ablation_figure import draw_ablation
from blip.results.bit_string import draw_bit_string, named_trace
from blip.results.capacity_figures import draw_capacity, draw_sizes
from blip.results.course import draw_course
from blip.results.currency_figure import draw_currency
from blip.results.loading import Runs, method_order
from blip.results.metrics import (
    games_begun,
    reference_scores,
    return_curves,
    run_metrics,
    score_means,
    score_name,
    seen_scores,
)
from blip.results.style import CAPTION, STYLE, Look, band, ink_on, method_looks, percent, sequence

METADATA = {"pdf": {"CreationDate": None}, "png": {}}  # no dates; a PNG is written anew without any
DPI = 200
MOST_LINES = 8
"""Values of a setting that can be told apart in one figure."""
RANGE = ("pi", 100)
"""What seaborn shows around a mean: from the lowest to the highest."""


def write_figures(runs: Runs, out_dir: Path, parameter: str | None = None, only: str | None = None) -> list[Path]:
    """Write <experiment>/<figure>.pdf and .png under `out_dir`, and <group>/… of variants; the paths written.

    A figure without data (no frozen bits, a single task, no games) is not written. `parameter`, as "layer:index",
    chooses whose bits are drawn wherever it was traced; elsewhere, and by default, it is one that is not 0. `only`
    is the one experiment or group to draw, beside which the other runs may be needed. Raises
    BlipError where no run has traced the parameter, or is of what `only` says.
    """
    known = list(named_trace(runs.tables["trace"])["parameter"].unique()) if "trace" in runs.tables else []
    if parameter is not None and parameter not in known:
        some = ", ".join(known[:5]) or "none, no method traced any"
        raise BlipError(f"parameter {parameter!r}: expected a traced layer:index, such as {some}")
    groups = runs.groups()
    names = [*runs.ungrouped(), *groups]
    if only is not None and only not in names:
        raise BlipError(f"--only {only}: expected one of {', '.join(names)}")
    looks = method_looks(runs.methods())
    files: dict[Path, bytes] = {}
    for name in names if only is None else [only]:
        with mpl.rc_context(STYLE):
            if name in groups:
                figures = _figures_of_group(runs, name, groups[name], looks)
            else:
                figures = _figures_of(runs.of(name), looks, parameter)
            for kind, figure in figures.items():
                files |= _drawn(figure, out_dir / name, kind) if figure else {}
    for path, content in files.items():  # all or nothing
        atomic_write(path, content)
    return list(files)


def _figures_of(runs: Runs, looks: dict[str, Look], parameter: str | None) -> dict[str, Figure | None]:
    """Of one experiment."""
    figures = {
        "matrix": draw_matrices(runs),
        "average": draw_average(runs, looks),
        "forgetting": draw_forgetting(runs, looks),
        "course": draw_course(runs, looks),
        "currency": draw_currency(runs, looks),
        "capacity": draw_capacity(runs),
        "sizes": draw_sizes(runs),
        "bit_string": draw_bit_string(runs, parameter),
        "history": draw_history(runs),
        "returns": draw_returns(runs, looks),
    }
    for figure in filter(None, figures.values()):
        if runs.stand_in():
            figure.suptitle(runs.title(), size=9)
    return figures


def _figures_of_group(runs: Runs, group: str, names: list[str], looks: dict[str, Look]) -> dict[str, Figure | None]:
    """Of variants of one experiment, beside the experiment as it is without."""
    varied = runs.of(*names)
    variant = varied.variants[names[0]]
    beside = runs.of(variant.of) if variant.of in runs.scores else None
    together = runs.of(*names, variant.of) if beside else varied
    figures: dict[str, Figure | None] = {"ablation": draw_ablation(varied, beside, looks)}
    if len(names) <= MOST_LINES:
        figures["course"] = draw_course(together, looks)
    for figure in filter(None, figures.values()):
        if varied.stand_in():
            figure.suptitle(f"{group} (stand-in data)", size=9)
    return figures


def draw_matrices(runs: Runs) -> Figure | None:
    """Result on each task after learning each task: a heat map per method, mean over seeds; None without a share."""
    result, task_name = score_name(runs), runs.score.task
    means = score_means(runs)
    if means["mean"].isna().all():
        return None
    every, methods = range(len(runs.tasks)), runs.methods()
    columns, side = min(3, len(methods)), max(2.0, 1.0 + 0.18 * len(every))
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(columns * side, rows * side), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    shares = means.assign(mean=100 * means["mean"]).set_index(["method", "task_learned", "task"])["mean"]
    lowest, highest = min(shares.min() // 10 * 10, 90), max(100, shares.max())
    for i, method in enumerate(methods):
        table = shares[method].unstack().reindex(index=every, columns=every)
        mesh = _heat_map(axes[i], table.to_numpy(), lowest, highest, annotated=len(every) <= 10)
        left, bottom = i % columns == 0, i >= len(methods) - columns
        axes[i].tick_params(labelleft=left, labelbottom=bottom)
        axes[i].set(
            title=method,
            xlabel=f"on {task_name}" if bottom else "",
            ylabel=f"after learning {task_name}" if left else "",
        )
    for ax in axes[len(methods) :]:
        ax.remove()
    bar = figure.colorbar(mesh, ax=axes[: len(methods)], aspect=30, shrink=0.8)
    bar.set_label(f"mean {'test ' * (result == 'accuracy')}{result} (%)")
    bar.outline.set_visible(False)
    if runs.orders:
        figure.supxlabel(runs.orders, **CAPTION)
    return figure


def _heat_map(ax: Axes, values: Any, lowest: float, highest: float, *, annotated: bool) -> Any:
    """Draw (n, n) values, those that are not there empty. seaborn's own draws the whole figure for each panel."""
    n = len(values)
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(values), vmin=lowest, vmax=highest, cmap="YlGnBu", edgecolors="white", linewidth=0.5
    )
    ax.set(aspect="equal", ylim=(n, 0))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(np.arange(n) + 0.5, [str(i + 1) for i in range(n)])
    ax.tick_params(length=0, labelsize=7)
    ax.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if annotated and not np.isnan(value):
            ink = ink_on(list(mesh.to_rgba(value)))
            ax.text(column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", size=6.5, color=ink)
    return mesh


def draw_average(runs: Runs, looks: dict[str, Look]) -> Figure | None:
    """Mean result over the tasks seen so far against the number of tasks learned; None without a share."""
    seen = seen_scores(runs)
    if seen["score"].isna().all():
        return None
    figure = _lines(
        seen.assign(task_learned=seen["task_learned"] + 1),
        ("task_learned", "tasks learned"),
        ("score", f"{score_name(runs)} on learned {runs.score.task}s"),
        **_by_method(runs.methods(), looks),
        markersize=5,
        errorbar=RANGE,
        height=3,
        aspect=1.5,
    )
    percent(figure.axes[0].yaxis)
    figure.supxlabel(band(runs), **CAPTION)
    return figure


def draw_forgetting(runs: Runs, looks: dict[str, Look]) -> Figure | None:
    """Forgetting of each method after the last task; None with a single task."""
    metrics = run_metrics(runs).dropna(subset="forgetting")
    if metrics.empty:
        return None
    methods = method_order(metrics["method"])
    figure = Figure(figsize=(4.8, 0.9 + 0.3 * len(methods)))
    ax = sns.barplot(
        metrics,
        x="forgetting",
        y="method",
        order=methods,
        hue="method",
        palette={method: looks[method].colour for method in methods},
        saturation=1,
        width=0.7,
        legend=False,
        errorbar=RANGE,
        capsize=0.25,
        err_kws={"linewidth": 1, "color": "0.2"},
        ax=figure.subplots(),
    )
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set(xlabel=f"forgetting: mean drop from the best {score_name(runs)}", ylabel="")
    percent(ax.xaxis)
    ax.tick_params(axis="y", length=0)
    figure.supxlabel("Lower is better. Bar: mean over seeds; whisker: from the lowest seed to the highest.", **CAPTION)
    return figure


def draw_history(runs: Runs) -> Figure | None:
    """Validation loss after each epoch, a line per task and seed; None where no task had two."""
    history = runs.tables.get("history")
    if history is None or not history["epoch"].any():  # counted from 0
        return None
    figure = _lines(
        history.assign(task=history["task"] + 1, epoch=history["epoch"] + 1),
        ("epoch", "epoch"),
        ("valid_loss", "validation loss"),
        hue="task",
        palette=sequence(history["task"].nunique()),
        units="seed",
        estimator=None,
        linewidth=0.9,
        **_panels(runs.methods(), 1.9, 1.3),
    )
    losses = history["valid_loss"][history["valid_loss"] > 0]
    few = losses.max() < 300 * losses.min()  # powers of ten alone would be too few
    figure.axes[0].set_yscale("log")  # of all panels
    figure.axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    figure.axes[0].yaxis.set_major_formatter("{x:g}")
    figure.axes[0].yaxis.set_minor_locator(NullLocator())
    figure.supxlabel("With the method's penalty: to be compared within a panel, not between two.", **CAPTION)
    return figure


def draw_returns(runs: Runs, looks: dict[str, Look]) -> Figure | None:
    """Return of each game from its start to the end of the last one, dotted where the next is begun; None elsewhere."""
    if "returns" not in runs.tables:
        return None
    games = runs.tasks
    curves = return_curves(runs)
    begun = games_begun(runs) / 1e6
    figure = _lines(
        curves.assign(steps=curves["steps"] / 1e6, game=curves["task"].map(dict(enumerate(games)))),
        ("steps", "million steps"),
        ("return", "mean return"),
        **_by_method(runs.methods(), looks),
        errorbar=RANGE,
        markeredgewidth=0,
        markersize=3,
        facet_kws={"sharey": False},
        **_panels(games, 2.2, 1.5, by="game"),
    )
    for ax, at_random in zip(figure.axes, reference_scores(runs)["chance"], strict=True):
        ax.axhline(at_random, color="0.5", linewidth=0.8, linestyle="--")
        for boundary in begun.iloc[1:]:
            ax.axvline(boundary, color="0.5", linewidth=0.8, linestyle=":")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel(f"{band(runs)} Dashed: random agent; dotted: the next game is begun.", **CAPTION)
    return figure


def _by_method(methods: list[str], looks: dict[str, Look]) -> dict[str, Any]:
    """A line for each method, as it is drawn everywhere."""
    hue = {"hue": "method", "hue_order": methods, "palette": {method: looks[method].colour for method in methods}}
    style = {"style": "method", "style_order": methods, "markers": {method: looks[method].marker for method in methods}}
    return hue | style | {"dashes": {method: looks[method].dashes or "" for method in methods}}


def _panels(names: list[str], height: float, aspect: float, by: str = "method") -> dict[str, Any]:
    """A panel for each method, or other column, at most three in a row, all with the same axes."""
    return {"col": by, "col_order": names, "col_wrap": min(3, len(names)), "height": height, "aspect": aspect}


def _lines(frame: pd.DataFrame, x: tuple[str, str], y: tuple[str, str], **how: Any) -> Figure:
    """Lines of a column over a whole-numbered one, both with their labels, and one legend on the right."""
    grid = sns.relplot(frame, kind="line", x=x[0], y=y[0], **how)
    grid.set_axis_labels(x[1], y[1]).set_titles("{col_name}")
    grid.axes.flat[0].xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    size = {"fontsize": 7, "ncols": -(-frame[how["hue"]].nunique() // 14)} if "col" in how else {"title": None}
    sns.move_legend(grid, "center left", bbox_to_anchor=(1, 0.5), **size)
    figure: Figure = grid.figure
    return figure


def _drawn(figure: Figure, folder: Path, name: str) -> dict[Path, bytes]:
    """The files of a figure and their contents."""
    figure.set_layout_engine("constrained")  # only now: it is slow, and seaborn draws to measure
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough for both files
    files = {}
    for suffix, metadata in METADATA.items():
        image = BytesIO()
        figure.savefig(image, format=suffix, metadata=metadata, dpi=DPI, bbox_inches="tight")
        files[folder / f"{name}.{suffix}"] = _with_palette(image) if suffix == "png" else image.getvalue()
    plt.close(figure)
    return files


def _with_palette(picture: BytesIO) -> bytes:
    """The same PNG with 256 colours, in a third of the bytes: what differs are shades at the edges of letters."""
    small = BytesIO()
    Image.open(picture).convert("RGB").quantize(256).save(small, "png", dpi=(DPI, DPI))
    return small.getvalue()
