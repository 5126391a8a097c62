"""The bits of one real parameter after each task: the paper's illustration, drawn from a run."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from blip.errors import BlipError
from blip.results.loading import Runs, method_order
from blip.results.style import CAPTION, ink_on, sequence


def bit_digits(value: float, bound: float, frozen: int, max_bits: int) -> str:
    """Binary digits of a consolidated parameter as a share of its bound B, such as "-0.1100".

    After consolidation value = B·m / 2^k with a whole number m and k = `frozen`, so value / B has k binary digits
    after the point; the others, up to `max_bits`, are 0. The digit before the point is 1 where value = ±B. Zero has no
    sign, "±". Raises ValueError where value is no such multiple up to float32 rounding: it was not consolidated.
    """
    scaled = value / bound * 2**frozen
    m = round(scaled)
    if abs(m) > 2**frozen or abs(scaled - m) > 2.0 ** (frozen - 22) or (m and not frozen):
        raise ValueError(f"{value} is no number of {frozen} bits in the range ±{bound}")
    digits = f"{abs(m) << (max_bits - frozen):0{max_bits + 1}b}"
    return f"{'±' if m == 0 else '-' if m < 0 else '+'}{digits[0]}.{digits[1:]}"


def named_trace(trace: pd.DataFrame) -> pd.DataFrame:
    """The trace table with a column `parameter`, "layer:index"."""
    return trace.assign(parameter=trace["layer"] + ":" + trace["index"].astype(str))


def choose_parameter(trace: pd.DataFrame) -> str:
    """The parameter in the named trace of one run to look at: not 0 after the most tasks.

    Among equals the one whose bits grew at the most tasks, then the first.
    """
    return str(_worth(trace).idxmax())


def _worth(trace: pd.DataFrame) -> "pd.Series[float]":
    """Of each parameter of one run: after how many tasks it is not 0, and, as a fraction, at how many its bits grew."""
    groups = trace.sort_values("task_learned", kind="stable").groupby("parameter", sort=False)
    grew = groups["frozen_bits"].agg(lambda k: (np.diff(k, prepend=0) > 0).sum())
    shown: pd.Series[float] = groups["value"].agg(lambda v: (v != 0).sum()) + grew / (
        1 + trace["task_learned"].nunique()
    )
    return shown


def traced_rows(runs: Runs, parameter: str | None = None) -> pd.DataFrame | None:
    """The trace of one parameter in one run, a row per task; None where nothing was traced but zeros.

    Of the first method that traced `parameter`; by default of the seed and parameter that are most worth it
    (`choose_parameter`).
    """
    if "trace" not in runs.tables:
        return None
    trace = named_trace(runs.tables["trace"])
    asked = parameter in set(trace["parameter"])
    if asked:
        trace = trace[trace["parameter"] == parameter]
    trace = trace[trace["method"] == method_order(trace["method"])[0]]
    if not asked and not trace["value"].any():
        return None
    worth = trace.groupby("seed")[["task_learned", "parameter", "value", "frozen_bits"]].apply(
        lambda t: _worth(t).max()
    )
    trace = trace[trace["seed"] == (worth.index.min() if asked else worth.idxmax())]
    rows: pd.DataFrame = trace[trace["parameter"] == choose_parameter(trace)].sort_values("task_learned")
    return rows


def _texts(rows: pd.DataFrame) -> list[str]:
    """The digits of each row. Raises BlipError where a value has other digits than its frozen bits allow."""
    first = rows.iloc[0]
    bound, max_bits = float(first["bound"]), int(first["max_bits"])
    try:
        return [bit_digits(v, bound, int(k), max_bits) for v, k in zip(rows["value"], rows["frozen_bits"], strict=True)]
    except ValueError as error:
        where = f"{first['experiment']}/{first['method']}/seed{first['seed']}/trace.csv: {first['parameter']}"
        raise BlipError(f"{where}: {error}") from error


def draw_bit_string(runs: Runs, parameter: str | None = None) -> Figure | None:
    """One parameter's bits, a row per task: frozen bits in the colour of the task that froze them; see `traced_rows`.

    A task may still move a value by one unit of its last frozen place, which can carry into higher digits: these are
    framed.
    """
    rows = traced_rows(runs, parameter)
    if rows is None:
        return None
    max_bits, bits = int(rows["max_bits"].iloc[0]), rows["frozen_bits"].to_numpy()[:, None]
    digits = np.array([list(text.replace(".", "").replace("-", "−")) for text in _texts(rows)])
    place = np.maximum(np.arange(max_bits + 2) - 1, 1)  # sign and integer digit are fixed with the first bit
    free = place > bits
    free[:, 0] |= digits[:, 0] == "±"  # the sign of 0 is open
    changed = (digits[1:] != digits[:-1]) & (place <= bits[:-1]) & (digits[:-1] != "±")
    figure = Figure(figsize=(0.24 * max_bits + 2.6, 0.27 * len(rows) + 0.35))
    ax = figure.subplots()
    froze, colours = np.where(free, -1, (bits >= place).argmax(axis=0)), sequence(len(rows))
    sns.heatmap(
        froze,
        cmap=ListedColormap([(0.95, 0.95, 0.95), *colours]),
        vmin=-1,
        vmax=len(rows) - 1,
        annot=np.char.add(digits, np.where(np.arange(max_bits + 2) == 1, ".", "")),
        fmt="",
        annot_kws={"size": 8},
        linewidths=1.5,
        cbar=False,
        yticklabels=[f"after task {row + 1}" for row in range(len(rows))],
        ax=ax,
    )
    for text, task in zip(list(ax.texts), froze.flat, strict=True):
        text.set_color("0.4" if task < 0 else ink_on(colours[task]))
    for row, column in np.argwhere(free):
        ax.add_patch(Rectangle((column + 0.04, row + 0.08), 0.92, 0.84, hatch="////", ec="0.82", fc="none", lw=0))
    for row, column in np.argwhere(changed):
        ax.add_patch(Rectangle((column + 0.04, row + 1.08), 0.92, 0.84, fill=False, edgecolor="k", linewidth=1.2))
    columns = {max_bits + 6.6: ("value", [f"{value:z.6f}".replace("-", "−") for value in rows["value"]])}
    columns |= {max_bits + 10.8: ("frozen bits", [str(k) for k in bits[:, 0]])}
    for right, (heading, cells) in columns.items():
        for row, cell in enumerate([heading, *cells]):
            ax.text(right, row - 0.5 if row else -0.4, cell, ha="right", va="center", size=8)
    numbered = [1, *range(5, max_bits + 1, 5)]
    ax.set_xticks([number + 1.5 for number in numbered], [str(number) for number in numbered], size=7, rotation=0)
    ax.xaxis.tick_top()
    ax.tick_params(axis="y", labelsize=8, labelrotation=0)
    ax.tick_params(length=0)
    figure.supxlabel(_caption(rows.iloc[0]), **CAPTION)
    return figure


def _caption(row: "pd.Series[Any]") -> str:
    return (
        f"Parameter {row['index']} of layer {row['layer']} ({row['method']}, seed {row['seed']}): value = digits × "
        f"{row['bound']:.4g}, at most {row['max_bits']} bits.\nColour: the task that froze the bit. Hatched: still "
        "free. Frame: a frozen digit that changed."
    )
