"""From what was measured: hours that the paper's suite takes on this GPU, one run at a time, at most."""

from collections.abc import Iterator
from typing import Any

from common import EXPERIMENTS, Row, row

from blip.config import load_experiment

SEEDS, GAME_SEEDS = 5, 3
EXAMPLES = {  # of one task to train on, tasks
    "mnist5": (12_000, 5),
    "cifar": (9_000, 10),
    "mixture5": (51_000, 5),
    "miniimagenet_alexnet": (2_450, 20),
    "miniimagenet_resnet": (2_450, 20),
}
"""Means over the tasks; `pmnist` has ten tasks of 60,000 and the steps of `mnist5`."""


def hours(steps: list[dict[str, Any]]) -> Iterator[Row]:
    """An upper bound for images, where the patience schedule mostly ends a task long before its 200 epochs."""
    found = {r["what"]: r["value"] for step in steps for r in step["rows"] if not isinstance(r["value"], str)}
    whole = 0.0
    for name, (examples, tasks) in {**EXAMPLES, "pmnist": (60_000, 10)}.items():
        case = "mnist5" if name == "pmnist" else name
        speed = found.get(f"{case}, blip, graphs")
        if speed is None:
            continue
        experiment: Any = load_experiment(EXPERIMENTS / f"{name}.yaml")
        per_run = tasks * experiment.training.epochs * examples / experiment.training.batch_size / speed / 3600
        hours = per_run * len(experiment.methods) * SEEDS
        whole += hours
        yield row(
            f"{name}: training steps of all methods and {SEEDS} seeds, at most", hours, "h", note=f"{per_run:.2f} a run"
        )
    speed = found.get("PPO, float32, graphs")
    if speed is not None:
        experiment = load_experiment(EXPERIMENTS / "atari6.yaml")
        per_run = len(experiment.games) * experiment.ppo.steps / speed / 3600
        hours = per_run * len(experiment.methods) * GAME_SEEDS
        whole += hours
        note = f"{per_run:.1f} a run, evaluation not counted"
        yield row(f"atari6: learning of all methods and {GAME_SEEDS} seeds", hours, "h", note=note)
    yield row("the paper's suite, one run at a time, at most", whole, "h")
