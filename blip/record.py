"""What a run measures: the one schema that training writes and results read, and its stopwatch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

TABLES = {
    "accuracy": ("task_learned", "task", "accuracy", "loss", "n"),
    "history": ("task", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy"),
    "bits": ("task_learned", "layer", "frozen_bits", "parameters"),
    "trace": ("task_learned", "layer", "index", "value", "bound", "frozen_bits"),
    "cost": ("task", "phase", "seconds"),
}
"""Tables in long form, a row per measurement, and their columns. `bits` and `trace` are a method's to fill.

For games, `accuracy` is the mean return of the games that were played at the end of a task, and there is no `loss`.
"""

GAME_TABLES = {
    "returns": ("task_training", "update", "task", "agent", "episode", "return", "length"),
    "updates": ("task", "update", "lr", "policy_loss", "value_loss", "entropy", "kl", "clipped", "return", "games"),
    "replays": ("task_learned", "task", "environment_seed", "return", "actions"),
}
"""Further tables of runs on games.

* `returns`: every game played for evaluation by an agent (`greedy` or `sampled` actions of the network, or `random`),
  after `update` updates of the game `task_training`; the last ones are played after the method's end of the task.
* `updates`: means over each update, and over the `games` that ended in its rollout.
* `replays`: of the games played at the end of each task the first one of each, with what it takes to see it again.
"""


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the time that the block takes to `seconds[phase]`."""
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start
