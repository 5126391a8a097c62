"""How a run goes on from task to task: what is newly learned, what is kept, what is forgotten, and the room left."""

from itertools import cycle

import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blip.record import short_key, short_value
from blip.results.loading import KEYS, Runs
from blip.results.matrix import as_matrix, forgetting
from blip.results.metrics import capacity, normalised_scores, score_name
from blip.results.style import CAPTION, MARKERS, Look, band, draw_spread, percent, sequence

MOST_MARKS = 12
"""Along a line."""


def course(runs: Runs) -> pd.DataFrame:
    """Of each run after each task (`tasks`, from 1): `newest`, the share on the task just learned, `all`, the mean over
    those learned so far, `forgetting` so far, and `capacity`; nan where one does not apply."""
    frozen = capacity(runs.tables["bits"]).to_dict() if "bits" in runs.tables else {}
    rows = []
    for key, frame in normalised_scores(runs).groupby(KEYS):
        R = as_matrix(frame)
        for i in range(len(R)):
            measured = {"newest": R[i, i], "all": R[i, : i + 1].mean(), "forgetting": forgetting(R[: i + 1, : i + 1])}
            place = dict(zip(KEYS, key, strict=True)) | {"tasks": i + 1}
            rows.append(place | measured | {"capacity": frozen.get((*key, i), float("nan"))})
    return pd.DataFrame(rows)


def draw_course(runs: Runs, looks: dict[str, Look]) -> Figure | None:
    """A line for each method, or value of a varied setting, in a panel for each measure; None with a single task.

    A group of variants may have the experiment as it is without beside it.
    """
    frame = course(runs)
    panels = {
        "newest": f"{score_name(runs.of(runs.experiments()[0]))}, newest task",
        "all": "all tasks so far",
        "forgetting": "forgetting",
        "capacity": "capacity used",
    }
    panels = {measure: label for measure, label in panels.items() if frame[measure].notna().any()}
    if frame["tasks"].max() < 2 or not panels:  # of games in which no method is better than chance
        return None
    frame = frame.assign(line=_names(runs, frame))
    styles = _styles(runs, frame, looks)
    figure = Figure(figsize=(2.5 * len(panels) + 1.0, 2.5))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (measure, label) in zip(axes, panels.items(), strict=True):
        for line, look in styles.items():
            by_task = frame[frame["line"] == line].groupby("tasks")[measure]
            if by_task.count().any():
                every = max(1, by_task.ngroups // MOST_MARKS)
                draw_spread(ax, by_task, **look.line(), markersize=3.5, markevery=every, label=line)
        ax.set(title=label, xlabel=f"{runs.of(runs.experiments()[0]).score.task}s learned")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        percent(ax.yaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.supxlabel(band(runs), **CAPTION)
    return figure


def _names(runs: Runs, frame: pd.DataFrame) -> list[str]:
    """What each row's line is called."""
    names = {}
    for experiment, method in frame[["experiment", "method"]].drop_duplicates().itertuples(index=False):
        variant = runs.variants.get(experiment)
        settings = variant.settings.items() if variant and len(runs.experiments()) > 1 else ()
        names[experiment, method] = ", ".join([method, *(f"{short_key(k)} {short_value(v)}" for k, v in settings)])
    return [names[place] for place in zip(frame["experiment"], frame["method"], strict=True)]


def _styles(runs: Runs, frame: pd.DataFrame, looks: dict[str, Look]) -> dict[str, Look]:
    """How each line is drawn: as its method; where a setting is varied light to dark, with a marker for each value."""
    lines = {row["line"]: (row["method"], row["experiment"]) for row in frame.to_dict("records")}
    ordered = sorted(lines, key=lambda line: runs.methods().index(lines[line][0]))
    varied = [line for line in ordered if lines[line][1] in runs.variants]
    styles = {line: looks[lines[line][0]] for line in ordered}
    if len(varied) > 1:
        for line, shade, marker in zip(varied, sequence(len(varied)), cycle(MARKERS), strict=False):
            styles[line] = styles[line]._replace(colour=to_hex(shade), marker=marker)
    return styles
