"""Tables of run folders for a terminal."""

import pandas as pd
from tabulate import tabulate

from blip.errors import printable
from blip.results.loading import Runs
from blip.results.metrics import scores_kept
from blip.results.tables import format_rows, headings, kept_markdown, method_table, notes, sentence

LEFT_OUT = "BWT (published"
"""A heading that starts so: the same number divided by another, too much for a line."""
LEGEND = "* the best of its column, or not to be told from the best"


def results_screen(runs: Runs) -> str:
    """Of each experiment its table, what it says in a sentence, and what must be known of the runs."""
    sections = []
    for name in runs.experiments():
        selected = runs.of(name)
        table = method_table(selected)
        listed = "\n".join(f"  {printable(note)}" for note in notes(selected))
        parts = [printable(selected.title()), _table(selected, table), f"{sentence(selected, table)}\n{listed}"]
        if table.filter(regex="_best$").any(axis=None):
            parts[1] += f"\n{LEGEND}"
        if selected.score.chance:
            parts.append(kept_markdown(selected, scores_kept(selected)))
        sections.append("\n\n".join(parts))
    return "\n\n\n".join(sections)


def _table(runs: Runs, table: pd.DataFrame) -> str:
    names = headings(runs, table)
    shown = [index for index, name in enumerate(names) if not name.startswith(LEFT_OUT)]
    rows = [[*head, *(f"{cell.text}{' *' * cell.best}" for cell in cells)] for head, cells in format_rows(table)]
    body = [[row[index] for index in shown] for row in rows]
    return tabulate(body, [names[index] for index in shown], disable_numparse=True)
