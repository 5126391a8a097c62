"""Texts as CSV, Markdown and LaTeX, in which nothing that came from a file is taken for markup or a formula."""

from html import escape
from typing import Any

import pandas as pd

LATEX_ESCAPES = str.maketrans(
    {sign: "\\" + sign for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
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


def latex_escape(text: str) -> str:
    """`text` with everything that LaTeX would read as a command escaped."""
    return text.translate(LATEX_ESCAPES)


def p_value(p: float) -> str:
    """Of a test, with three decimals; never a 0, which no test gives."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def measured(value: float, unit: str, sign: str = "") -> str:
    """A number to four digits, of percent and points to a hundredth."""
    return f"{value:{sign}z.2f}" if unit in ("%", "points") else f"{value:{sign}.4g}"


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
