"""The bits of one real parameter after each task: the paper's illustration, drawn from a run."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from blip.errors import BlipError
from blip.results.metrics import KEYS
from blip.results.runs import Runs, method_order
from blip.results.style import add_caption, panels, sequence

FREE = {"facecolor": "0.95", "edgecolor": "0.82", "hatch": "////", "linewidth": 0}


def bit_digits(value: float, bound: float, frozen: int, max_bits: int) -> str:
    """Binary digits of a consolidated parameter as a share of its bound B, such as "-0.1100".

    After consolidation value = B·m / 2^k with a whole number m and k = `frozen`, so value / B has k
    binary digits after the point; the others, up to `max_bits`, are 0. The digit before the point is
    1 where value = ±B. Zero has no sign, "±". Raises ValueError where value is no such multiple up to
    float32 rounding: it was not consolidated with these bits.
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
    """The parameter of one run whose frozen bits grew at the most tasks; the first among equals.

    `trace` is a named trace.
    """
    ordered = trace.sort_values("task_learned", kind="stable")
    grew = ordered.groupby("parameter", sort=False)["frozen_bits"].agg(lambda k: (np.diff(k, prepend=0) > 0).sum())
    return str(grew.idxmax())


def draw_bit_string(runs: Runs, parameter: str | None = None) -> Figure | None:
    """One parameter's bits, a row per task: frozen bits in the colour of the task that froze them.

    From the first method and seed that traced `parameter` (default: `choose_parameter`); None
    without a trace. Hatched zeros are free: the next task may overwrite them. A frame marks a frozen
    digit that is not what it was a row above: a task may still move a value by one unit of its last
    frozen place, and that can carry into higher digits.
    """
    trace = named_trace(runs.trace).merge(runs.runs[[*KEYS, "max_bits"]], on=KEYS)
    if parameter in set(trace["parameter"]):
        trace = trace[trace["parameter"] == parameter]
    if trace.empty:
        return None
    trace = trace[trace["method"] == method_order(trace["method"])[0]]
    trace = trace[trace["seed"] == trace["seed"].min()]
    rows = trace[trace["parameter"] == choose_parameter(trace)].sort_values("task_learned")
    values, bits = rows["value"].tolist(), rows["frozen_bits"].tolist()
    first = rows.iloc[0]
    bound, max_bits = float(first["bound"]), int(first["max_bits"])
    try:
        digits = [bit_digits(v, bound, k, max_bits) for v, k in zip(values, bits, strict=True)]
    except ValueError as error:
        run = f"{first['experiment']}/{first['method']}/seed{first['seed']}"
        raise BlipError(f"{run}/trace.csv: {first['parameter']}: {error}") from error
    figure, axes = panels([""], 0.24 * max_bits + 2.6, 0.27 * len(rows) + 0.35)
    _draw_digits(axes[""], digits, bits)
    _write_margins(axes[""], values, bits, max_bits)
    add_caption(
        figure,
        f"Parameter {first['index']} of layer {first['layer']} ({first['method']}, seed "
        f"{first['seed']}): value = digits × {bound:.4g}, at most {max_bits} bits.\n"
        "Colour: the task that froze the bit. Hatched: still free. "
        "Frame: a frozen digit that changed.",
    )
    return figure


def _draw_digits(ax: Axes, digits: list[str], bits: list[int]) -> None:
    """A cell for each digit of each row (task); `digits` as `bit_digits` writes them."""
    colours = sequence(len(digits))
    for row, (text, k) in enumerate(zip(digits, bits, strict=True)):
        for column, sign in enumerate(text):
            if sign == ".":
                ax.text(_left(2) + 0.2, row, ".", ha="center", va="center", weight="bold")
                continue
            place = max(column - 2, 1)  # sign and integer digit are fixed with the first bit
            free = place > k or sign == "±"
            style: dict[str, Any] = FREE
            if not free:
                frozen_by = next(task for task, count in enumerate(bits) if count >= place)
                style = {"facecolor": colours[frozen_by], "edgecolor": "none"}
            corner = (_left(column) + 0.04, row - 0.42)
            ax.add_patch(Rectangle(corner, 0.92, 0.84, **style))
            before = digits[row - 1][column] if row and place <= bits[row - 1] else sign
            if sign != before and before != "±":
                ax.add_patch(Rectangle(corner, 0.92, 0.84, fill=False, edgecolor="k", linewidth=1.2))
            colour = "0.55" if free else _text_colour(style["facecolor"])
            shown = sign.replace("-", "−")
            ax.text(_left(column) + 0.5, row, shown, ha="center", va="center", size=8, color=colour)
    ax.set_xlim(-0.1, _left(len(digits[0])) + 9.2)
    ax.set_ylim(len(digits) - 0.4, -1.3)


def _write_margins(ax: Axes, values: list[float], bits: list[int], max_bits: int) -> None:
    """Task names on the left, the number of each bit on top, value and k on the right."""
    right = _left(max_bits + 3)
    for place in (1, *range(5, max_bits + 1, 5)):
        ax.text(_left(place + 2) + 0.5, -0.85, str(place), ha="center", va="center", size=7)
    ax.text(right + 4.6, -0.85, "value", ha="right", va="center", size=8)
    ax.text(right + 8.8, -0.85, "frozen bits", ha="right", va="center", size=8)
    for row, (value, k) in enumerate(zip(values, bits, strict=True)):
        shown = f"{value:.6f}".replace("-", "−")
        ax.text(right + 4.6, row, shown, ha="right", va="center", size=8)
        ax.text(right + 8.8, row, str(k), ha="right", va="center", size=8)
    ax.set_yticks(range(len(values)), [f"after task {row + 1}" for row in range(len(values))], size=8)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _left(column: int) -> float:
    """Left edge of a column: sign, integer digit, the narrow point, then the digits after it."""
    return column - 0.6 * (column > 2)


def _text_colour(background: tuple[float, float, float]) -> str:
    """White on dark colours, black on light ones (relative luminance, ITU-R BT.709)."""
    return "white" if np.dot(background, (0.2126, 0.7152, 0.0722)) < 0.5 else "black"
