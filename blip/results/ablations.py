"""What a setting does: runs of one experiment in which settings are varied, as one table."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from blip.record import are_numbers, short_key, short_value
from blip.results.loading import KEYS, Runs, method_order
from blip.results.markup import markdown_table, plain
from blip.results.metrics import run_metrics, score_name

MEASURES = {
    "acc": "ACC %",
    "learning_acc": "just learned %",
    "bwt": "BWT %",
    "forgetting": "forgetting %",
    "capacity": "capacity %",
}
"""Of `run_metrics`, and their headings."""


def ablation(runs: Runs) -> pd.DataFrame:
    """A row for each run of one group: its varied settings by their dotted keys, then method, seed and `MEASURES`.

    Sorted by the settings' values, then by method and seed. Shares in [0, 1]; nan where a measure does not apply.
    """
    metrics = run_metrics(runs)
    settings = pd.DataFrame([runs.variants[name].settings for name in metrics["experiment"]], dtype=object)
    frame = pd.concat([settings, metrics[[*KEYS, *MEASURES]]], axis=1)
    methods = method_order(frame["method"])
    order = {key: _ranks(frame[key]) for key in settings} | {"method": frame["method"].map(methods.index)}
    ranks = pd.DataFrame(order | {"seed": frame["seed"]})
    return frame.loc[ranks.sort_values([*order, "seed"]).index].reset_index(drop=True)


def settings_of(frame: pd.DataFrame) -> list[str]:
    """The varied settings of what `ablation` gives, by their dotted keys."""
    return [str(column) for column in frame if column not in (*KEYS, *MEASURES)]


def columns_of(settings: Iterable[str]) -> dict[str, str]:
    """What the column of each setting is called: its short name, where no other column has it."""
    short = {key: short_key(key) for key in settings}
    taken = [*short.values(), *KEYS, "n"]
    return {key: name if taken.count(name) == 1 else key for key, name in short.items()}


def _ranks(values: "pd.Series[Any]") -> "pd.Series[int]":
    """Numbers by their size, everything else by its text."""
    key: Callable[[Any], Any] = float if are_numbers(values) else short_value
    order = sorted({key(value) for value in values})
    return values.map(lambda value: order.index(key(value)))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and n over seeds: a row for each combination of values and each method."""
    rows, columns = [], columns_of(settings_of(frame))
    for (experiment, method), part in frame.groupby(["experiment", "method"], sort=False):
        row: dict[str, Any] = {name: short_value(part[key].iloc[0]) for key, name in columns.items()}
        row |= {"method": method, "experiment": experiment, "n": len(part)}
        for measure in MEASURES:
            row |= {f"{measure}_percent_{name}": 100 * part[measure].agg(name) for name in ("mean", "std")}
        rows.append(row)
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What there is to show of a `summary`: texts, the first of them the settings, and measures."""
    texts = [*table.columns[: list(table.columns).index("method")], "method", "n"]
    return texts, [measure for measure in MEASURES if table[f"{measure}_percent_mean"].notna().any()]


def about(runs: Runs, texts: list[str]) -> str:
    """What the experiments of a group are, in words."""
    return f"{next(iter(runs.variants.values())).of} with other values of {', '.join(texts[:-2])}"


def section(runs: Runs, group: str, table: pd.DataFrame) -> str:
    """The table of a group in Markdown, with its title."""
    texts, measures = shown(table)
    rows = [
        [*(plain(str(row[name])) for name in texts), *(cell(row, measure) for measure in measures)]
        for row in table.to_dict("records")
    ]
    heads = [*texts, *(MEASURES[measure] for measure in measures)]
    of, _, changed = about(runs, texts).partition(" ")
    stand_in = " (stand-in data)" * runs.stand_in()
    text = f"`{of}` {changed}: mean ± standard deviation over n seeds"
    text += f". ACC is of the {score_name(runs)}, on one scale." if next(iter(runs.scores.values())).chance else "."
    return f"## {group}{stand_in}\n\n{text}\n\n{markdown_table(rows, heads)}\n"


def cell(row: Mapping[Any, Any], measure: str) -> str:
    """Mean ± standard deviation of a measure in a row of `summary`, as text."""
    mean, std = row[f"{measure}_percent_mean"], row[f"{measure}_percent_std"]
    if pd.isna(mean):
        return "–"
    return f"{mean:z.2f}" + ("" if pd.isna(std) else f" ± {std:.2f}")
