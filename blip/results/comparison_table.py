"""The comparison of BLIP with every other method, as Markdown and LaTeX."""

from collections.abc import Iterator
from textwrap import fill

import pandas as pd

from blip.results.markup import latex_escape, latex_table, markdown_table, p_value, plain, points

DIFFERENCES = "Differences of runs with the same seed, BLIP's minus the other's, in points"
TESTED = (
    "[95 % t interval], with p of Student's paired test (both from five common seeds on) and of the exact sign-flip "
    "test (from six on), Holm-corrected within an experiment. The last column goes by Student's."
)
HEADINGS = ("experiment", "metric", "method", "n", "difference", "p (t)", "p (sign flips)", "")


def comparison_markdown(compared: pd.DataFrame) -> str:
    """The comparison as a section."""
    rows = [[plain(cell) for cell in row] for row in comparison_rows(compared)]
    text = fill(_legend(compared), 116, break_on_hyphens=False)
    return f"## BLIP beside every other method\n\n{text}\n\n{markdown_table(rows, HEADINGS)}\n"


def comparison_latex(compared: pd.DataFrame) -> str:
    """The comparison for a document that loads booktabs."""
    rows = []
    for *named, difference, t, sign_flips, verdict in comparison_rows(compared):
        rows.append([*map(latex_escape, [*named, difference.replace("-", "−"), t, sign_flips, verdict])])
    return latex_table(rows, HEADINGS, _legend(compared), "lllrlrrl")


def _legend(compared: pd.DataFrame) -> str:
    """What the table shows, as far as there is any of it."""
    return f"{DIFFERENCES} {TESTED}" if compared["low"].notna().any() else f"{DIFFERENCES}; too few seeds to test them."


def comparison_rows(compared: pd.DataFrame) -> Iterator[list[str]]:
    """The cells of each row, as text below `HEADINGS`."""
    for row in compared.to_dict("records"):
        difference, low, high = (points(row[name]) for name in ("difference", "low", "high"))
        spread = "" if pd.isna(row["low"]) else f" [{low}, {high}]"
        tests = [p_value(row[name]) for name in ("p_t_holm", "p_sign_flip_holm")]
        shown = "–" if pd.isna(row["difference"]) else difference + spread
        yield [row["experiment"], row["metric"], row["method"], str(row["n"]), shown, *tests, row["verdict"]]
