"""Charts of the page as specifications of Vega-Lite, which the browser draws.

Colours are the page's CSS variables, so that charts follow its scheme. `shown` is the list of methods that are switched
on. Tasks are counted from 1, as readers do.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from blip.record import short_key, short_value
from blip.results.ablations import settings_of
from blip.results.loading import KEYS, Runs
from blip.results.markup import p_value
from blip.results.metrics import (
    games_begun,
    layer_bits,
    reference_scores,
    return_curves,
    score_means,
    score_name,
    seen_scores,
)
from blip.results.page_style import HEAT_STEPS, outline
from blip.results.style import method_looks

Spec: TypeAlias = dict[str, Any]

FONT = "system-ui, sans-serif"
CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule)",
        "gridColor": "var(--grid)",
        "tickColor": "var(--rule)",
        "labelColor": "var(--quiet)",
        "titleColor": "var(--quiet)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "tickSize": 4,
    },
}
"""Of all charts."""
MOST_NUMBERED = 10
"""Tasks of a heat map whose cells hold numbers; with more there is no room."""
FEW = 6
"""Tasks of a heat map whose cells have room for a decimal."""
MOST_EPOCHS = 300
"""Points of a method in a chart of epochs."""
WIDEST, LARGEST_CELL, SMALLEST_CELL = 240, 40, 12
"""Of a heat map, in pixels."""
OVER_SEEDS: list[Spec] = [
    {"field": "std", "title": "± over seeds", "format": ".2f"},
    {"field": "n", "title": "seeds"},
]
"""What tooltips say last."""
SWITCHED_ON = {"filter": "indexof(shown, datum.method) >= 0"}


class Sample(NamedTuple):
    """How a method is drawn on the page."""

    colour: str
    """A variable of CSS."""
    shape: str
    """A path of SVG between about -1 and 1."""
    dashes: list[float]
    """In pixels, as Vega and SVG take them."""


class Palette:
    """How each method is drawn, the same in all charts of a page, and as in the figures."""

    def __init__(self, methods: Sequence[str]) -> None:
        looks = method_looks(methods)
        self.samples = {
            method: Sample(f"var(--m{i})", outline(looks[method].marker), [2 * x for x in looks[method].dashes])
            for i, method in enumerate(methods)
        }

    def colour(self, methods: list[str]) -> Spec:
        """The channel."""
        return self._channel("colour", methods)

    def shape(self, methods: list[str]) -> Spec:
        """The channel."""
        return self._channel("shape", methods)

    def dash(self, methods: list[str]) -> Spec:
        """The channel."""
        return self._channel("dashes", methods)

    def _channel(self, part: str, methods: list[str]) -> Spec:
        output = [getattr(self.samples[method], part) for method in methods]
        return {"field": "method", "type": "nominal", "scale": {"domain": methods, "range": output}, "legend": None}


def average_chart(runs: Runs, palette: Palette) -> Spec | None:
    """Mean result over the tasks learned so far, a line for each method, with a band from lowest to highest; None
    without a share, or with one task."""
    seen = seen_scores(runs)
    if seen["score"].isna().all() or len(runs.tasks) < 2:
        return None
    spread = _spread(seen.assign(score=100 * seen["score"]), ["method", "task_learned"], "score")
    spread["learned"] = spread.pop("task_learned") + 1
    what = f"mean {score_name(runs)}"
    axis = {"labelAngle": 0, "labelOverlap": True}
    x = {"field": "learned", "type": "ordinal", "title": f"{runs.score.task}s learned", "axis": axis}
    return _lines(spread, x, what, runs.methods(), palette) | {"height": 280}


def return_charts(runs: Runs, palette: Palette) -> list[Spec]:
    """Return of each game from its start to the end of the last one; none where nothing is played."""
    if "returns" not in runs.tables:
        return []
    curves = return_curves(runs)
    begun = games_begun(runs).iloc[1:] / 1e6
    charts = []
    for task, chance in enumerate(reference_scores(runs)["chance"]):
        spread = _spread(curves[curves["task"] == task], ["method", "steps"], "return")
        spread["steps"] /= 1e6
        x = {"field": "steps", "type": "quantitative", "title": "million steps", "axis": {"tickCount": 5}}
        chart = _lines(spread, x, "mean return", runs.methods(), palette) | {"height": 180}
        quiet: Spec = {"type": "rule", "color": "var(--quiet)"}
        for channel, values, dash in (("y", [chance], [4, 3]), ("x", list(begun), [1, 3])):
            if not values:
                continue
            line = {"data": {"values": [{channel: _number(value)} for value in values]}}
            line |= {"mark": quiet | {"strokeDash": dash}}
            chart["layer"] += [line | {"encoding": {channel: {"field": channel, "type": "quantitative"}}}]
        charts.append(chart)
    return charts


def matrix_charts(runs: Runs) -> tuple[dict[str, Spec], tuple[float, float]]:
    """Of each method a heat map of the result on each task after learning each, and the ends of the colours, in %."""
    means, task, names = score_means(runs), runs.score.task, _names(runs)
    if means["mean"].isna().all():
        return {}, (0, 100)
    means[["mean", "std"]] *= 100
    ends = min(float(means["mean"].min() // 10 * 10), 90), max(100, float(means["mean"].max()))
    what = score_name(runs)
    tooltip = [
        {"field": "after", "title": "after learning"},
        {"field": "on", "title": task},
        {"field": "value", "title": f"{what} (%)", "format": ".2f"},
        *OVER_SEEDS,
    ]
    charts, how = {}, ".1f" if len(runs.tasks) <= FEW else ".0f"
    for method, rows in means.groupby("method"):
        cells = pd.DataFrame(
            {
                "column": rows["task"] + 1,
                "row": rows["task_learned"] + 1,
                "on": rows["task"].map(names),
                "after": rows["task_learned"].map(names),
                "value": rows["mean"],
                "std": rows["std"],
                "n": rows["n"],
            }
        )
        numbers = list(range(1, len(runs.tasks) + 1))
        x = {"field": "column", "type": "ordinal", "title": None, "scale": {"domain": numbers}}
        y = {"field": "row", "type": "ordinal", "title": None, "scale": {"domain": numbers}}
        charts[str(method)] = _heat(cells, x, y, ends, tooltip, how, (len(numbers), len(numbers)))
    return charts, ends


def bits_charts(runs: Runs) -> tuple[dict[str, Spec], int]:
    """Of each method that freezes bits a heat map of their mean in each layer after each task, and the most of them."""
    if "bits" not in runs.tables:
        return {}, 0
    most, task = int(runs.tables["bits"]["max_bits"].max()), runs.score.task
    spread = _spread(layer_bits(runs.tables["bits"]), ["method", "task_learned", "layer"], "mean")
    tooltip = [
        {"field": "row", "title": "layer"},
        {"field": "column", "title": f"{task}s learned"},
        {"field": "value", "title": f"mean frozen bits (of {most})", "format": ".2f"},
        *OVER_SEEDS,
    ]
    charts, how = {}, ".1f" if len(runs.tasks) <= FEW else ".0f"
    for method, rows in spread.groupby("method", sort=False):
        layers = list(dict.fromkeys(rows["layer"]))
        cells = rows.rename(columns={"layer": "row", "mean": "value"}).drop(columns=["method", "low", "high"])
        cells["column"] = cells.pop("task_learned") + 1
        x = {"field": "column", "type": "ordinal", "title": None}
        y = {"field": "row", "type": "ordinal", "title": None, "sort": None, "axis": {"labelLimit": 110}}
        charts[str(method)] = _heat(cells, x, y, (0, most), tooltip, how, (len(runs.tasks), len(layers)))
    return charts, most


def paired_charts(compared: pd.DataFrame, palette: Palette) -> dict[str, Spec]:
    """Of each metric the differences between BLIP and every other method, with their 95 % intervals, in points."""
    charts = {}
    for metric, rows in compared.dropna(subset="difference").groupby("metric", sort=False):
        points = rows[["method", "n", "p_t_holm", "p_sign_flip_holm", "verdict"]].assign(
            **{name: 100 * rows[name] for name in ("difference", "low", "high")}
        )
        charts[str(metric)] = _differences(points, palette)
    return charts


def variation_charts(frame: pd.DataFrame, measures: Sequence[str], palette: Palette) -> dict[str, Spec]:
    """Of each measure in percent its course over the values of one setting, in the frame of `ablations.ablation`; none
    where several settings are varied."""
    setting, *others = settings_of(frame)
    frame = frame.assign(value=frame[setting].map(short_value))
    charts: dict[str, Spec] = {}
    methods = list(dict.fromkeys(frame["method"]))
    for measure in measures if not others else ():
        spread = _spread(frame.assign(percent=100 * frame[measure]), ["value", "method"], "percent")
        axis = {"labelAngle": 0, "labelOverlap": True, "labelLimit": 70}
        x: Spec = {"field": "value", "type": "ordinal", "sort": None, "title": short_key(setting), "axis": axis}
        what = measure.replace("acc", "ACC")
        charts[measure] = _lines(spread.dropna(subset="mean"), x, what, methods, palette) | {"height": 180}
    return charts


def loss_chart(runs: Runs, palette: Palette) -> Spec | None:
    """Mean validation loss after each epoch of each task, a line for each method and task; None where no task had two.

    Tasks stand side by side, each as wide as the longest training.
    """
    points = _losses(runs) if "history" in runs.tables else pd.DataFrame({"epoch": []})
    if not (points["epoch"] > 1).any():
        return None
    tasks, methods = len(runs.tasks), [method for method in runs.methods() if method in set(points["method"])]
    between: Spec = {"data": {"values": [{"at": task} for task in range(1, tasks)]}}
    axis = {"values": list(range(1, tasks + 1)), "grid": False, "labelOverlap": True, "format": "d"}
    x = {"field": "at", "type": "quantitative", "title": "tasks learned", "axis": axis, "scale": {"domain": [0, tasks]}}
    y = {"field": "mean", "type": "quantitative", "title": None, "scale": {"type": "log", "nice": False}}
    y["axis"] = {"tickCount": 5, "format": "~g"}
    tooltip: list[Spec] = [{"field": "method"}, {"field": "task"}, {"field": "epoch"}]
    for field, title in (("mean", "validation loss"), ("std", "± over seeds")):
        tooltip.append({"field": field, "title": title, "format": ".3g"})
    every = {"x": x, "y": y, "color": palette.colour(methods), "detail": {"field": "task", "type": "nominal"}}
    lines = every | {"strokeDash": palette.dash(methods)}
    shapes = every | {"shape": palette.shape(methods), "tooltip": [*tooltip, {"field": "n", "title": "seeds"}]}
    return {
        "width": "container",
        "height": 220,
        "data": {"values": _records(points)},
        "params": [{"name": "shown", "value": methods}],
        "layer": [
            between | {"mark": {"type": "rule", "color": "var(--grid)"}, "encoding": {"x": x}},
            {"transform": [SWITCHED_ON], "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": lines},
            {"transform": [SWITCHED_ON], "mark": {"type": "point", "filled": True, "size": 16}, "encoding": shapes},
        ],
    }


def _losses(runs: Runs) -> pd.DataFrame:
    """Validation loss over seeds, by method, task and epoch (from 1); `at` is its place on an axis of tasks. Of many
    epochs some are left out."""
    history = runs.tables["history"]
    longest = int(history["epoch"].max()) + 1
    every = -(-longest * len(runs.tasks) // MOST_EPOCHS)
    last = history.groupby([*KEYS, "task"])["epoch"].transform("max")
    history = history[(history["epoch"] % every == 0) | (history["epoch"] == last)]
    spread = _spread(history, ["method", "task", "epoch"], "valid_loss").drop(columns=["low", "high"])
    spread = spread[spread["mean"] > 0].sort_values(["method", "task", "epoch"])  # there is no logarithm of 0
    spread["epoch"] += 1
    return spread.assign(at=spread["task"] + spread["epoch"] / longest, task=spread["task"] + 1)


def _differences(points: pd.DataFrame, palette: Palette) -> Spec:
    """A point and an interval for each method, and a line at zero."""
    methods = list(points["method"])
    drawn = {end: points[name].fillna(points["difference"]) for end, name in (("from", "low"), ("to", "high"))}
    x = {"type": "quantitative", "title": "difference in points", "axis": {"tickCount": 5}}
    y = {"field": "method", "type": "nominal", "sort": methods, "title": None, "axis": {"grid": True}}
    tests = {"p_t_holm": "p (t)", "p_sign_flip_holm": "p (sign flips)"}
    shown: list[Spec] = [{"field": name, "format": "+.2f"} for name in ("difference", "low", "high")]
    shown = [{"field": "method"}, {"field": "n"}, *shown]
    shown += [{"field": name, "title": title} for name, title in tests.items()]
    tooltip = [entry for entry in [*shown, {"field": "verdict"}] if points[entry["field"]].notna().any()]
    points = points.assign(**{name: points[name].map(p_value) for name in tests})
    zero = {"data": {"values": [{"zero": 0}]}, "mark": {"type": "rule", "color": "var(--quiet)"}}
    interval = {"type": "rule", "strokeWidth": 2.5, "opacity": 0.55}
    ends = {"x": {"field": "from", **x}, "x2": {"field": "to"}, "y": y, "color": palette.colour(methods)}
    layers: list[Spec] = [
        zero | {"encoding": {"x": {"field": "zero", **x}}},
        {"transform": [SWITCHED_ON], "mark": interval, "encoding": ends},
        {
            "transform": [SWITCHED_ON],
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": {"field": "difference", **x}, "y": y, "tooltip": tooltip}
            | {"color": palette.colour(methods), "shape": palette.shape(methods)},
        },
    ]
    return {
        "width": "container",
        "height": 26 * len(methods),
        "data": {"values": _records(points.assign(**drawn))},
        "params": [{"name": "shown", "value": methods}],
        "layer": layers,
    }


def _lines(spread: pd.DataFrame, x: Spec, what: str, methods: list[str], palette: Palette) -> Spec:
    """Lines of means with bands and points, over the width there is."""
    y = {"field": "mean", "type": "quantitative", "title": None, "scale": {"zero": False}}
    tooltip = [
        {"field": "method"},
        {"field": x["field"], "title": x["title"]},
        {"field": "mean", "title": what, "format": ".2f"},
        *OVER_SEEDS,
    ]
    both = {"x": x, "color": palette.colour(methods)}
    band = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    points = {"y": y, "shape": palette.shape(methods), "tooltip": tooltip}
    marks: list[tuple[Spec, Spec]] = [
        ({"type": "area", "opacity": 0.1}, band),
        ({"type": "line", "strokeWidth": 2}, {"y": y, "strokeDash": palette.dash(methods)}),
        ({"type": "point", "filled": True, "size": 60, "opacity": 1}, points),
    ]
    return {
        "width": "container",
        "data": {"values": _records(spread)},
        "params": [{"name": "shown", "value": methods}],
        "layer": [{"transform": [SWITCHED_ON], "mark": mark, "encoding": both | encoding} for mark, encoding in marks],
    }


def _heat(
    cells: pd.DataFrame,
    x: Spec,
    y: Spec,
    ends: tuple[float, float],
    tooltip: list[Spec],
    how: str,
    size: tuple[int, int],
) -> Spec:
    """A heat map of `value`, in which numbers stand where there is room."""
    columns, rows = size
    step = max(SMALLEST_CELL, min(LARGEST_CELL, WIDEST // columns))
    colours = {"type": "quantize", "domain": list(ends), "range": [f"var(--h{i})" for i in range(HEAT_STEPS)]}
    inks = colours | {"range": [f"var(--n{i})" for i in range(HEAT_STEPS)]}
    value = {"field": "value", "type": "quantitative", "legend": None}
    cell = {"mark": {"type": "rect", "cornerRadius": 2}}
    cell |= {"encoding": {"color": value | {"scale": colours}, "tooltip": tooltip}}
    number: Spec = {"mark": {"type": "text", "fontSize": 10.5}}  # above its cell, so it has what that says
    text = {"field": "value", "type": "quantitative", "format": how}
    number |= {"encoding": {"text": text, "color": value | {"scale": inks}, "tooltip": tooltip}}
    axis = {"domain": False, "ticks": False, "labelAngle": 0, "labelPadding": 5, "grid": False}
    band = {"paddingInner": 0.05, "paddingOuter": 0}
    x = x | {
        "axis": axis | {"orient": "top", "labelOverlap": True, "labelSeparation": 3},
        "scale": band | x.get("scale", {}),
    }
    y = y | {"axis": axis | y.get("axis", {}), "scale": band | y.get("scale", {})}
    return {
        "width": columns * step,
        "height": rows * min(step, 30) if rows != columns else rows * step,
        "data": {"values": _records(cells)},
        "encoding": {"x": x, "y": y},
        "layer": [cell, number] if columns <= MOST_NUMBERED else [cell],
        "resolve": {"scale": {"color": "independent"}},
    }


def _spread(frame: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Mean, std, n, lowest and highest, over seeds; groups in the order in which they appear."""
    groups = frame.groupby(by, sort=False)[column]
    return groups.agg(mean="mean", std="std", n="count", low="min", high="max").reset_index()


def _names(runs: Runs) -> dict[int, str]:
    """Number and name of each task, where all runs have it at the same place; otherwise the number alone."""
    orders = [[task.name for task in record.tasks] for record in runs.records.values()]
    same = all(order == orders[0] for order in orders)
    return {i: f"{i + 1}: {name}" if same else str(i + 1) for i, name in enumerate(runs.tasks)}


def _records(frame: pd.DataFrame) -> list[Spec]:
    """Rows of a frame; numbers with six digits, null where there is none."""
    return [{str(key): _number(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return None if pd.isna(value) else float(f"{value:.6g}")
    return value
