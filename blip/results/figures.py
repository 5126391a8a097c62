"""Figures of each experiment, as PDF and PNG; the same runs give the same bytes.

A method has one colour in all figures, safe for colour-blind readers. Tasks are counted from 1, as
readers do. Spreads are standard deviations over seeds.
"""

from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blip.errors import BlipError
from blip.files import atomic_write
from blip.results.bit_string import draw_bit_string, named_trace
from blip.results.metrics import KEYS, run_metrics
from blip.results.runs import Runs, method_order
from blip.results.style import STYLE, Colour, add_caption, label, method_colours, panels, sequence

METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}  # no dates, no versions
BAND = "Line: mean over seeds; band: ± standard deviation."


def write_figures(runs: Runs, out_dir: Path, parameter: str | None = None) -> list[Path]:
    """Write <experiment>/<figure>.pdf and .png under `out_dir`; the paths written.

    A figure without data (no frozen bits, a single task) is not written. `parameter`, as
    "layer:index", chooses whose bits are drawn wherever it was traced; elsewhere, and by default, it
    is the one whose bits grew at the most tasks. Raises BlipError where no run has traced it.
    """
    known = list(dict.fromkeys(named_trace(runs.trace)["parameter"]))
    if parameter is not None and parameter not in known:
        some = ", ".join(known[:5]) or "none, there is no trace.csv"
        raise BlipError(f"parameter {parameter!r}: expected a traced layer:index, such as {some}")
    colours = method_colours(runs.methods())
    paths = []
    for experiment in runs.experiments():
        selected = runs.of(experiment)
        with mpl.rc_context(STYLE):
            figures = {
                "matrix": draw_matrices(selected),
                "accuracy": draw_accuracy(selected, colours),
                "forgetting": draw_forgetting(selected, colours),
                "bits": draw_bits(selected),
                "bit_string": draw_bit_string(selected, parameter),
                "history": draw_history(selected),
            }
            for name, figure in figures.items():
                if figure is None:
                    continue
                if selected.stand_in():
                    figure.suptitle(selected.title(), size=9)
                paths += _save(figure, out_dir / experiment, name)
    return paths


def draw_matrices(runs: Runs) -> Figure:
    """Accuracy on each task after learning each task: a heat map per method, mean over seeds."""
    means = 100 * runs.accuracy.groupby(["method", "task_learned", "task"])["accuracy"].mean()
    T = int(runs.accuracy["task"].max()) + 1
    side = max(2.0, 1.0 + 0.18 * T)
    lowest = min(float(np.floor(means.min() / 10)) * 10, 90.0)
    figure, axes = panels(runs.methods(), side, side + 0.1)
    for method, ax in axes.items():
        R = means[method].unstack().reindex(index=range(T), columns=range(T))
        sns.heatmap(
            R,
            ax=ax,
            vmin=lowest,
            vmax=100,
            cmap="YlGnBu",
            cbar=False,
            square=True,
            annot=T <= 10,
            fmt=".0f",
            linewidths=0.5,
            annot_kws={"size": 6.5},
            xticklabels=range(1, T + 1),
            yticklabels=range(1, T + 1),
        )
        ax.tick_params(length=0, labelrotation=0, labelsize=7)
    label(axes, "accuracy on task", "after learning task")
    everywhere = list(axes.values())
    bar = figure.colorbar(everywhere[0].collections[0], ax=everywhere, aspect=30, shrink=0.8)
    bar.set_label("mean test accuracy (%)")
    bar.outline.set_visible(False)
    return figure


def draw_accuracy(runs: Runs, colours: dict[str, Colour]) -> Figure:
    """Mean accuracy over the tasks seen so far against the number of tasks learned."""
    seen = runs.accuracy.groupby([*KEYS, "task_learned"])["accuracy"].mean().reset_index()
    seen["task_learned"] += 1
    figure, axes = panels([""], 4.6, 3.0)
    ax = axes[""]
    methods = runs.methods()
    sns.lineplot(
        seen,
        x="task_learned",
        y="accuracy",
        hue="method",
        hue_order=methods,
        palette=colours,
        style="method",
        style_order=methods,
        markers=dict(zip(methods, cycle("os^DvPX"))),
        dashes=False,
        markersize=5,
        errorbar="sd",
        ax=ax,
    )
    ax.set(xlabel="tasks learned", ylabel="accuracy on learned tasks")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _percent(ax.yaxis)
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    add_caption(figure, BAND)
    return figure


def draw_forgetting(runs: Runs, colours: dict[str, Colour]) -> Figure | None:
    """Forgetting of each method after the last task; None with a single task."""
    metrics = run_metrics(runs).dropna(subset="forgetting")
    if metrics.empty:
        return None
    methods = method_order(metrics["method"])
    figure, axes = panels([""], 4.8, 0.9 + 0.3 * len(methods))
    ax = axes[""]
    sns.barplot(
        metrics,
        x="forgetting",
        y="method",
        order=methods,
        hue="method",
        palette=colours,
        saturation=1,
        width=0.7,
        legend=False,
        errorbar="sd",
        capsize=0.25,
        err_kws={"linewidth": 1, "color": "0.2"},
        ax=ax,
    )
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set(xlabel="forgetting: mean drop from the best accuracy", ylabel="")
    _percent(ax.xaxis)
    ax.tick_params(axis="y", length=0)
    add_caption(figure, "Lower is better. Bar: mean over seeds; whisker: ± standard deviation.")
    return figure


def draw_bits(runs: Runs) -> Figure | None:
    """Mean frozen bits per parameter of each layer after each task; None without frozen bits."""
    if runs.bits.empty:
        return None
    bits = runs.bits.assign(frozen=runs.bits["frozen_bits"] * runs.bits["parameters"])
    groups = bits.groupby([*KEYS, "task_learned", "layer"], sort=False)
    sums = groups[["frozen", "parameters"]].sum()
    means = (sums["frozen"] / sums["parameters"]).rename("mean").reset_index()
    means["task_learned"] += 1
    figure, axes = panels(method_order(means["method"]), 4.4, 2.9)
    max_bits = int(runs.runs["max_bits"].max())
    for method, ax in axes.items():
        _ordered_lines(
            means[means["method"] == method],
            ax,
            "task_learned",
            "mean",
            "layer",
            list(means["layer"].unique()),
            errorbar="sd",
            marker="o",
            markeredgewidth=0,
            markersize=3.5,
        )
        ax.set_ylim(0, max_bits)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    label(axes, "tasks learned", f"mean frozen bits (of {max_bits})")
    _shared_legend(figure, axes, "layer")
    add_caption(figure, BAND)
    return figure


def draw_history(runs: Runs) -> Figure:
    """Validation loss after each epoch, a line per task and seed."""
    history = runs.history.assign(task=runs.history["task"] + 1)
    figure, axes = panels(runs.methods(), 2.4, 1.9)
    for method, ax in axes.items():
        _ordered_lines(
            history[history["method"] == method],
            ax,
            "epoch",
            "valid_loss",
            "task",
            sorted(history["task"].unique()),
            units="seed",
            estimator=None,
            linewidth=0.9,
        )
        ax.set_yscale("log")
    label(axes, "epoch", "validation loss")
    _shared_legend(figure, axes, "task")
    return figure


def _ordered_lines(frame: pd.DataFrame, ax: Axes, x: str, y: str, hue: str, order: list[Any], **how: Any) -> None:
    """Lines of `y` over a whole-numbered `x`, one per `hue`, coloured in the given order."""
    colours = sequence(len(order))
    sns.lineplot(frame, x=x, y=y, hue=hue, hue_order=order, palette=colours, ax=ax, **how)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _shared_legend(figure: Figure, axes: dict[str, Axes], title: str) -> None:
    """One legend to the right of all panels instead of one in each."""
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    for ax in axes.values():
        legend = ax.get_legend()
        if legend:
            legend.remove()
    figure.legend(
        handles,
        labels,
        title=title,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        fontsize=7,
        ncols=-(-len(labels) // 14),
    )


def _percent(axis: Axis) -> None:
    """Ticks of a share, in percent, at round numbers."""
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6g} %")


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    figure.set_layout_engine("constrained")  # only now: it is slow, and seaborn draws to measure
    paths = []
    for suffix, metadata in METADATA.items():
        image = BytesIO()
        figure.savefig(image, format=suffix, metadata=metadata, dpi=200, bbox_inches="tight")
        paths.append(folder / f"{name}.{suffix}")
        atomic_write(paths[-1], image.getvalue())
    return paths
