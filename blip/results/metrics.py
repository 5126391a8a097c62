"""Metrics of runs: scores as shares, a row of metrics per run, and their spread over seeds."""

import pandas as pd

from blip.results.loading import JOINT, KEYS, SINGLE_TASK, Runs
from blip.results.matrix import (
    as_matrix,
    average,
    backward_transfer,
    backward_transfer_published,
    forgetting,
    just_learned,
)
from blip.results.statistics import bootstrap_interval


def capacity(bits: pd.DataFrame) -> "pd.Series[float]":
    """Share of all bits that are frozen in each run after each task, Σk / ΣQ over the parameters, in [0, 1].

    `bits` counts the parameters with each number of frozen bits k, of at most Q (`max_bits`); in all layers, or some.
    The index has `KEYS` and task_learned.
    """
    frozen, all_bits = (
        (bits[column] * bits["parameters"]).groupby([bits[key] for key in (*KEYS, "task_learned")]).sum()
        for column in ("frozen_bits", "max_bits")
    )
    return frozen / all_bits


def score_name(runs: Runs) -> str:
    """What tables and figures show of a task."""
    return f"normalised {runs.score.name}" if runs.score.chance else runs.score.name


def normalised_scores(runs: Runs) -> pd.DataFrame:
    """All scores as shares (columns task_learned, task, score, n): as they are, or relative where they are no shares.

    A relative score is 0 for what one gets by chance and 1 for the method that learned the task best: the highest mean
    over seeds, among the methods of the experiment (of a variant: as it is, `Runs.reference`), of the score just after
    learning it. nan where nobody did better than chance.
    """
    return pd.concat([_normalised(runs.of(name)) for name in runs.experiments()], ignore_index=True)


def _normalised(runs: Runs) -> pd.DataFrame:
    scores = runs.raw_scores()
    if runs.score.chance is None:
        return scores
    reference = reference_scores(runs.reference())
    low = scores["task"].map(reference["chance"])
    span = (scores["task"].map(reference["best"]) - low).where(lambda width: width > 0)
    return scores.assign(score=(scores["score"] - low) / span)


def reference_scores(runs: Runs) -> pd.DataFrame:
    """Of each task of one experiment, or of its variants (rows): mean score by chance, and of who learned it best."""
    assert runs.score.chance is not None
    means = newest_scores(runs.raw_scores()).groupby(["task", "experiment", "method"])["score"].mean()
    by_chance = runs.tables[runs.score.chance].groupby("task")[runs.score.column].mean()
    return pd.DataFrame({"chance": by_chance, "best": means.groupby("task").max()})


def scores_kept(runs: Runs) -> pd.DataFrame:
    """Of each task and method of one experiment: mean and standard deviation over seeds of the score just after
    learning the task (`learned_…`) and after the last one (`end_…`), beside that by chance."""
    scores = runs.raw_scores()
    moments = {"learned": newest_scores(scores), "end": last_scores(scores)}
    spread = [
        frame.groupby(["task", "method"])["score"].agg(["mean", "std"]).add_prefix(f"{name}_")
        for name, frame in moments.items()
    ]
    table: pd.DataFrame = pd.concat(spread, axis=1).reset_index()
    table.insert(2, "chance", table["task"].map(reference_scores(runs)["chance"]))
    table.insert(1, runs.score.task, table["task"].map(dict(enumerate(runs.tasks))))
    return table


def score_means(runs: Runs) -> pd.DataFrame:
    """Of one experiment, in shares: mean, std and n over seeds of each entry of the matrices (method, task_learned,
    task)."""
    groups = normalised_scores(runs).groupby(["method", "task_learned", "task"])["score"]
    return groups.agg(mean="mean", std="std", n="count").reset_index()


def seen_scores(runs: Runs) -> pd.DataFrame:
    """Mean share over the tasks learned so far, of each run after each task (columns `KEYS`, task_learned, score).

    To the last bit that of `average`, which adds in another order than pandas: else a mean that lies between two
    hundredths of a percent would be rounded up in one table and down in another.
    """
    groups = normalised_scores(runs).groupby([*KEYS, "task_learned"])["score"]
    return groups.agg(lambda scores: scores.to_numpy().mean()).reset_index()


def layer_bits(bits: pd.DataFrame) -> pd.DataFrame:
    """Mean frozen bits per parameter of each layer after each task, layers in their order in the network (columns
    `KEYS`, task_learned, layer, mean)."""
    bits = bits.assign(frozen=bits["frozen_bits"] * bits["parameters"])
    sums = bits.groupby([*KEYS, "task_learned", "layer"], sort=False)[["frozen", "parameters"]].sum().reset_index()
    return sums.assign(mean=sums["frozen"] / sums["parameters"]).drop(columns=["frozen", "parameters"])


def return_curves(runs: Runs) -> pd.DataFrame:
    """Mean return of the agent in each evaluation of each game (columns `KEYS`, task, steps of the run, return)."""
    returns = runs.tables["returns"]
    returns = returns[returns["agent"] != "random"]
    return returns.groupby([*KEYS, "task", "steps"])["return"].mean().reset_index()


def games_begun(runs: Runs) -> "pd.Series[int]":
    """Steps of the run at which each game begins to be learned."""
    returns = runs.tables["returns"]
    begun: pd.Series[int] = returns[returns["agent"] != "random"].groupby("task_training")["steps"].min()
    return begun


def newest_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Of these scores those just after learning the task."""
    return scores[scores["task_learned"] == scores["task"]]


def last_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Of these scores those after the last task of each run."""
    return scores[scores["task_learned"] == scores.groupby(KEYS)["task_learned"].transform("max")]


def run_metrics(runs: Runs) -> pd.DataFrame:
    """One row per run: experiment, method, seed, shares in [0, 1], minutes and peak memory in MB.

    nan where a metric does not apply (capacity without frozen bits, forgetting with one task, plasticity without a run
    of single-task with the same seed) or is not known (the memory of joint training).
    """
    seconds = runs.tables["cost"].groupby(KEYS)["seconds"].sum().to_dict()
    memory = runs.runs.set_index(KEYS)["peak_memory_mb"].to_dict()
    kept = runs.tables["memory"].groupby(KEYS)["bytes"].last().to_dict() if "memory" in runs.tables else {}
    frozen = capacity(runs.tables["bits"]).to_dict() if "bits" in runs.tables else {}
    plasticity = _plasticity(runs).to_dict()
    rows = {}
    for key, frame in normalised_scores(runs).groupby(KEYS):
        R = as_matrix(frame)
        rows[key] = {
            "acc": average(R),
            "bwt": backward_transfer(R),
            "bwt_published": backward_transfer_published(R),
            "forgetting": forgetting(R),
            "learning_acc": just_learned(R),
            "plasticity": plasticity[key],
            "capacity": frozen.get((*key, len(R) - 1), float("nan")),
            # Joint training keeps all images, which nobody counts: what it needs is not 0, but not known.
            "memory_mb": float("nan") if key[1] == JOINT else kept.get(key, float("nan")) / 1e6,
            "minutes": seconds[key] / 60,
            "peak_memory_mb": memory[key],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(KEYS).reset_index()


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Spread over seeds, long: experiment, method, metric, mean, std (ddof = 1), n, low, high.

    low and high are the 95 % bootstrap interval of the mean, nan for too few seeds (`bootstrap_interval`); std is nan
    for fewer than two. n counts the seeds for which the metric is a number.
    """
    long = metrics.melt(id_vars=KEYS, var_name="metric")
    groups = long.groupby(["experiment", "method", "metric"], sort=False)["value"]
    summary = groups.agg(mean="mean", std="std", n="count").reset_index()
    summary[["low", "high"]] = [bootstrap_interval(values) for _, values in groups]
    return summary


def _plasticity(runs: Runs) -> "pd.Series[float]":
    """Of each run beside one of single-task with its seed: mean difference of the share just after learning a task."""
    learned = newest_scores(normalised_scores(runs))
    alone = learned[learned["method"] == SINGLE_TASK].drop(columns="method")
    both = learned.merge(alone, "left", on=["experiment", "seed", "task"], suffixes=("", "_alone"))
    result: pd.Series[float] = (both["score"] - both["score_alone"]).groupby([both[key] for key in KEYS]).mean()
    return result
