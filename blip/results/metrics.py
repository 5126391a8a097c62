"""Metrics of continual learning, as pure functions of an accuracy matrix or of tables of runs.

R[i, j] is the test accuracy in [0, 1] on task j after learning task i (0-based, T tasks); it is nan
above the diagonal. For games it is the normalised return, see `shares`. Where there is no earlier task (T = 1),
measures of forgetting are nan.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from blip.errors import BlipError

if TYPE_CHECKING:
    from blip.results.loading import Runs

Matrix = NDArray[np.float64]
KEYS = ["experiment", "method", "seed"]


def accuracy_matrix(frame: pd.DataFrame) -> Matrix:
    """R from the long table of one run (columns task_learned, task, accuracy).

    Raises BlipError unless each entry of the lower triangle is there once, with a number.
    """
    T = frame["task_learned"].nunique()
    found = sorted(zip(frame["task_learned"].tolist(), frame["task"].tolist(), strict=True))
    if not T or found != [(i, j) for i in range(T) for j in range(i + 1)] or frame["accuracy"].isna().any():
        raise BlipError(
            "expected one accuracy for every task up to task_learned, for task_learned = 0, 1, …; "
            f"found {frame['accuracy'].count()} for {T} tasks"
        )
    return _matrix(frame)


def _matrix(frame: pd.DataFrame) -> Matrix:
    return frame.pivot(index="task_learned", columns="task", values="accuracy").to_numpy()


def average_accuracy(R: Matrix) -> float:
    """ACC: mean accuracy over all tasks after the last one."""
    return float(R[-1].mean())


def learning_accuracy(R: Matrix) -> float:
    """Mean accuracy on each task just after learning it (the diagonal of R)."""
    return float(np.diag(R).mean())


def backward_transfer(R: Matrix) -> float:
    """BWT: mean change on earlier tasks since each was learned (Lopez-Paz & Ranzato 2017); below 0 is forgetting."""
    change = (R[-1] - np.diag(R))[:-1]
    return float(change.mean()) if change.size else float("nan")


def backward_transfer_published(R: Matrix) -> float:
    """BWT as BLIP's published code has it: the same sum divided by T instead of T - 1."""
    return backward_transfer(R) * (len(R) - 1) / len(R)


def forgetting(R: Matrix) -> float:
    """Mean drop on earlier tasks from their best accuracy before the last task (Chaudhry et al. 2018)."""
    earlier = R[:-1, :-1]
    return float((np.fmax.reduce(earlier) - R[-1, :-1]).mean()) if earlier.size else float("nan")


def capacity(bits: pd.DataFrame, max_bits: int) -> "pd.Series[float]":
    """Share of all bits that are frozen after each task, Σk / (max_bits · parameters), in [0, 1].

    `bits` counts the parameters of one run with each number of frozen bits k.
    """
    frozen = (bits["frozen_bits"] * bits["parameters"]).groupby(bits["task_learned"]).sum()
    return frozen / (max_bits * bits.groupby("task_learned")["parameters"].sum())


def shares(runs: "Runs") -> pd.DataFrame:
    """The table `accuracy` with all results as shares: accuracies as they are, mean returns of games normalised.

    A return is normalised to 0 for the random agent and 1 for the agent that learned the game best: the highest mean
    over seeds, among the methods of the experiment, of the return just after learning it. nan where nobody did better
    than the random agent.
    """
    frames = [
        _normalised(runs.of(name)) if runs.of(name).games() else runs.of(name).accuracy for name in runs.experiments()
    ]
    return pd.concat(frames, ignore_index=True)


def reference_returns(runs: "Runs") -> pd.DataFrame:
    """Of each game of one experiment (rows, by task): the mean return at random, and of who learned it best."""
    means = _just_learned(runs).groupby(["task", "method"])["accuracy"].mean()
    at_random = runs.returns[runs.returns["agent"] == "random"].groupby("task")["return"].mean()
    return pd.DataFrame({"random": at_random, "best": means.groupby("task").max()})


def returns_kept(runs: "Runs") -> pd.DataFrame:
    """Of each game and method of one experiment: mean and standard deviation over seeds of the return just after
    learning the game (`learned_…`) and after the last one (`end_…`), beside that of the random agent."""
    last = runs.accuracy[runs.accuracy["task_learned"] == runs.accuracy["task_learned"].max()]
    moments = {"learned": _just_learned(runs), "end": last}
    spread = [
        frame.groupby(["task", "method"])["accuracy"].agg(["mean", "std"]).add_prefix(f"{name}_")
        for name, frame in moments.items()
    ]
    table: pd.DataFrame = pd.concat(spread, axis=1).reset_index()
    table.insert(2, "random", table["task"].map(reference_returns(runs)["random"]))
    table.insert(1, "game", table["task"].map(dict(enumerate(runs.games()))))
    return table


def _just_learned(runs: "Runs") -> pd.DataFrame:
    diagonal: pd.DataFrame = runs.accuracy[runs.accuracy["task_learned"] == runs.accuracy["task"]]
    return diagonal


def _normalised(runs: "Runs") -> pd.DataFrame:
    accuracy, reference = runs.accuracy, reference_returns(runs)
    low = accuracy["task"].map(reference["random"])
    span = (accuracy["task"].map(reference["best"]) - low).where(lambda width: width > 0)
    return accuracy.assign(accuracy=(accuracy["accuracy"] - low) / span)


def run_metrics(runs: "Runs") -> pd.DataFrame:
    """One row per run: experiment, method, seed, shares in [0, 1], minutes and peak memory in MB.

    nan where a metric does not apply (capacity without frozen bits, forgetting with one task).
    """
    runs_bits, runs_cost = (dict(list(frame.groupby(KEYS))) for frame in (runs.bits, runs.cost))
    max_bits = runs.runs.set_index(KEYS)["max_bits"].to_dict()
    rows = {}
    for key, frame in shares(runs).groupby(KEYS):
        R = _matrix(frame)
        seconds = runs_cost[key].groupby("phase")["seconds"].sum()
        rows[key] = {
            "acc": average_accuracy(R),
            "bwt": backward_transfer(R),
            "bwt_published": backward_transfer_published(R),
            "forgetting": forgetting(R),
            "learning_acc": learning_accuracy(R),
            "capacity": capacity(runs_bits[key], max_bits[key]).iloc[-1] if key in runs_bits else float("nan"),
            "minutes": seconds.drop("peak_memory_mb").sum() / 60,
            "peak_memory_mb": seconds["peak_memory_mb"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(KEYS).reset_index()


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Spread over seeds, long: experiment, method, metric, mean, std (ddof = 1), n, ci95.

    ci95 is half the width of the 95 % confidence interval of the mean (t distribution). std and ci95 are nan for fewer
    than two seeds; n counts the seeds for which the metric is a number.
    """
    long = metrics.melt(id_vars=KEYS, var_name="metric")
    groups = long.groupby(["experiment", "method", "metric"], sort=False)["value"]
    summary = groups.agg(mean="mean", std="std", n="count", ci95="sem").reset_index()
    summary["ci95"] *= stats.t.ppf(0.975, summary["n"] - 1)
    return summary
