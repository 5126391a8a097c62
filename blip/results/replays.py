"""Games that can be played again: which of a method's are shown, and what they returned."""

from pathlib import Path
from typing import Any

from blip.errors import BlipError
from blip.results.loading import KEYS, Runs


def replay_rows(runs: Runs, method: str) -> dict[tuple[int, int], dict[str, Any]]:
    """Of the first seed of a method on one experiment, by (games learned - 1, game): a row of the table `replays`, and
    the mean `score` of all `n` games of that evaluation.

    Raises BlipError where a game is there twice or unknown.
    """
    rows = runs.tables["replays"].merge(runs.raw_scores(), on=[*KEYS, "task_learned", "task"])
    seed = runs.runs.loc[runs.runs["method"] == method, "seed"].min()
    every, found = range(len(runs.tasks)), dict[tuple[int, int], dict[str, Any]]()
    for row in rows[(rows["method"] == method) & (rows["seed"] == seed)].to_dict("records"):
        i, j = place = int(row["task_learned"]), int(row["task"])
        if place in found or i not in every or j not in every:
            where = f"{row['experiment']}/{method}"
            raise BlipError(f"{where}: replays: expected each game after each once, found {i}, {j}")
        found[place] = {str(key): value for key, value in row.items()}
    return found


def picture_path(experiment: str, method: str, learned: int, game: int) -> Path:
    """Of the moving picture of a game after learning another (both from 0), within the folder of games."""
    return Path(experiment, method, f"{learned + 1}-{game + 1}.gif")
