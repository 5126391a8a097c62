"""What claims say of runs: a number for each run, from its folder alone."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import pandas as pd

from blip.results.audit import untold_moves
from blip.results.loading import KEYS, Runs
from blip.results.metrics import last_scores, newest_scores, run_metrics

PerRun: TypeAlias = "pd.Series[float]"
"""By experiment, method and seed; without the runs, or nan for those, that the measure says nothing of."""


class NotThereError(Exception):
    """What is needed to measure is not on this machine; the message says what, and how to give it."""


class Measure(NamedTuple):
    """How a number is had of each run, and what of all seeds' numbers a claim speaks of."""

    of: Callable[[Runs], PerRun]
    unit: str
    over_seeds: Literal["mean", "max", "min"] = "mean"


def metric(name: str, factor: float = 100) -> Callable[[Runs], PerRun]:
    """A column of `run_metrics`, shares in percent."""
    return lambda runs: run_metrics(runs).set_index(KEYS)[name] * factor


def largest_change(runs: Runs) -> PerRun:
    """Largest difference of an earlier task's score, in the end, from the one just after learning it; in points."""
    scores = pd.concat([runs.of(name).raw_scores() for name in runs.experiments()])
    places = [*KEYS, "task"]
    learned = newest_scores(scores).set_index(places)["score"]
    return 100 * (last_scores(scores).set_index(places)["score"] - learned).abs().groupby(KEYS).max()


def memory_growth(runs: Runs) -> PerRun:
    """What a method keeps after the last task / after the first."""
    by_run = _table(runs, "memory").groupby(KEYS)["bytes"]
    return by_run.last() / by_run.first()


def largest_move(runs: Runs) -> PerRun:
    """Largest move of an anchor when a task was consolidated, in units of what its frozen bits allow.

    Infinite where a run says it of some tasks and layers alone; without a run that says nothing of them.
    """
    moves = _table(runs, "moves")
    told = moves["largest_move"].where(moves["largest_move"] >= 0, math.inf)
    return _all_told(runs, told.groupby([moves[key] for key in KEYS]).max())


def lost_bits(runs: Runs) -> PerRun:
    """Parameters that had fewer frozen bits after a task than before."""
    return _all_told(runs, _table(runs, "moves").groupby(KEYS)["lost_bits"].sum())


def _all_told(runs: Runs, values: PerRun) -> PerRun:
    """Infinite where some of the moves are missing."""
    untold = untold_moves(runs)
    broken = pd.Series([key in untold for key in values.index], values.index, dtype=bool)
    return values.astype(float).mask(broken, math.inf)


def over_chance(runs: Runs) -> PerRun:
    """Score just after learning a task / by chance, where scores are no shares; the lowest of all tasks.

    Of no run with a task in which chance is not above 0, where a ratio says nothing.
    """
    parts = []
    for name in runs.experiments():
        selected = runs.of(name)
        if selected.score.chance is None:
            continue
        learned = newest_scores(selected.raw_scores()).set_index([*KEYS, "task"])["score"]
        chance = selected.tables[selected.score.chance].set_index([*KEYS, "task"])[selected.score.column]
        ratios = (learned / chance).where(chance > 0)
        parts.append(ratios.groupby(KEYS).agg(lambda of: of.min(skipna=False)))
    return pd.concat(parts) if parts else _nothing()


def wrong_replays(runs: Runs) -> PerRun:
    """How many recorded games do not give the recorded return when their actions are played again."""
    table = _table(runs, "replays")
    names = [runs.of(experiment).tasks for experiment in table["experiment"]]
    wrong: list[bool] = [_plays_otherwise(names[i][row["task"]], row) for i, row in enumerate(table.to_dict("records"))]
    result: PerRun = table.assign(wrong=wrong).groupby(KEYS)["wrong"].sum().astype(float)
    return result


def _plays_otherwise(game: str, recorded: dict[Any, Any]) -> bool:
    try:
        from blip.games.replay import replay  # not imported where no game is replayed
    except ImportError:
        raise NotThereError("the emulator: pip install 'blip-continual[rl]'") from None
    *_, (_, result) = replay(game, int(recorded["environment_seed"]), str(recorded["actions"]))
    return bool(result != recorded["return"])


def _table(runs: Runs, name: str) -> pd.DataFrame:
    """A table of all runs that have it; where none has, one without rows."""
    columns = ["bytes", "phase", "seconds", "task", "epoch", "largest_move", "lost_bits", "environment_seed", "actions"]
    return runs.tables.get(name, pd.DataFrame(columns=[*KEYS, *columns, "return"]))


def _nothing() -> PerRun:
    return pd.Series(index=pd.MultiIndex.from_arrays([[], [], []], names=KEYS), dtype="float64")


MEASURES = {
    "accuracy": Measure(metric("acc"), "%"),
    "backward transfer": Measure(metric("bwt"), "points"),
    "forgetting": Measure(metric("forgetting"), "points"),
    "plasticity": Measure(metric("plasticity"), "points"),
    "capacity": Measure(metric("capacity"), "%"),
    "largest change": Measure(largest_change, "points", "max"),
    "memory growth": Measure(memory_growth, "×"),
    "largest move": Measure(largest_move, "× allowed", "max"),
    "lost bits": Measure(lost_bits, "parameters", "max"),
    "over chance": Measure(over_chance, "× chance", "min"),
    "wrong replays": Measure(wrong_replays, "games", "max"),
}
