"""The scores of a run as a person reads them."""

from textwrap import shorten

from tabulate import tabulate

from blip.record import Row, Score


def score_table(rows: list[Row], score: Score, tasks: list[str]) -> str:
    """The scores on each task (a column) after learning each (a row), and their mean; shares in percent.

    `rows` are those of the score's table: task_learned, task and the score.
    """
    factor, unit = (100, " %") if score.chance is None else (1, "")
    body = []
    for i, name in enumerate(tasks):
        learned = [factor * row[score.column] for row in rows if row["task_learned"] == i]
        cells = [*map("{:.1f}".format, learned), *[""] * (len(tasks) - len(learned))]
        body.append([f"{i + 1} {shorten(name, 30)}", *cells, f"{sum(learned) / len(learned):.1f}"])
    heading = [f"{score.name}{unit} after {score.task}", *(str(i + 1) for i in range(len(tasks))), "mean"]
    return tabulate(body, heading, disable_numparse=True, colalign=["left", *["right"] * (len(tasks) + 1)])
