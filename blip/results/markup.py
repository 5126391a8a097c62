"""Texts as CSV, Markdown and LaTeX, in which nothing that came from a file is taken for markup or a formula."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd
from tabulate import tabulate

NEGATIVE = re.compile(r"-[0-9.]+(e-?[0-9]+)?")
LATEX_ESCAPES = str.maketrans(
    {sign: "\\" + sign for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "÷": r"$\div$", "–": "--", "−": "$-$"}
)


def to_csv(frame: pd.DataFrame) -> str:
    """A CSV file's content; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    safe = frame.assign(
        **{name: frame[name].map(_no_formula) for name in map(str, frame.select_dtypes(exclude="number"))}
    )
    content: str = safe.to_csv(index=False)
    return content


def plain(text: str) -> str:
    """A text in Markdown that is neither markup nor the end of a table's cell."""
    return "".join(f"\\{c}" if c in "\\`*[]|" else c for c in escape(" ".join(text.split()), quote=False))


def markdown_table(rows: Iterable[Iterable[object]], heads: Sequence[str]) -> str:
    """Rows below their heads, in Markdown."""
    return tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)


def latex_table(rows: Iterable[Iterable[str]], heads: Iterable[str], caption: str, columns: str) -> str:
    """Escaped rows below their heads, for a document that loads booktabs; `columns` says how each is set."""
    heading, *body = (" & ".join(row) + r" \\" for row in [heads, *rows])
    start = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_escape(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    end = [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*start, r"\toprule", heading, r"\midrule", *body, *end])


def latex_escape(text: str) -> str:
    """`text` with everything that LaTeX would read as a command escaped."""
    return text.translate(LATEX_ESCAPES)


def p_value(p: float) -> str:
    """Of a test, with three decimals; never a 0, which no test gives."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_phrase(p: float) -> str:
    """`p_value` within a sentence."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def points(difference: float) -> str:
    """A difference of shares in points; one that rounds to 0 still says on which side of it it is."""
    value = 100 * difference
    return f"{0.0 if abs(value) < 1e-9 else value:+.2f}"  # less than that is rounding errors


def measured(value: float, unit: str, sign: str = "") -> str:
    """A number to four digits, of percent and points to a hundredth."""
    return f"{value:{sign}z.2f}" if unit in ("%", "points") else f"{value:{sign}.4g}"


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    return value if NEGATIVE.fullmatch(value) else f"'{value}"
