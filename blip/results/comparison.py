"""Is the difference real? BLIP against every other method, paired by seed; and games by their interquartile means."""

import math
from typing import Any

import numpy as np
import pandas as pd

from blip.results.loading import REFERENCES, Runs
from blip.results.metrics import last_scores, normalised_scores, run_metrics
from blip.results.statistics import LEVEL, SEEDS_OF_INTERVAL, holm, interquartile_interval, interquartile_mean, paired

OURS = "blip"
COMPARED = ("acc", "forgetting")
"""Metrics, in shares, of which the one is better the higher, the other the lower."""


def compare(runs: Runs) -> pd.DataFrame:
    """A row for each metric and each method beside BLIP in an experiment: `difference` is BLIP's minus the method's.

    Columns experiment, metric, method, n (pairs of runs with one seed), difference, low, high (95 % t interval), p_t,
    p_t_holm, p_sign_flip, p_sign_flip_holm, verdict. p_…_holm is corrected for all rows of the experiment; the verdict
    goes by p_t_holm. nan, and so said in the verdict, where there are too few seeds.
    """
    rows: list[dict[str, Any]] = []
    for experiment, metrics in run_metrics(runs).groupby("experiment"):
        by_seed = metrics.set_index("seed")
        ours = by_seed[by_seed["method"] == OURS]
        section = [
            _row(str(experiment), metric, method, (ours[metric] - others[metric]).dropna())
            for metric in COMPARED
            for method, others in by_seed[by_seed["method"] != OURS].groupby("method")
            if len(ours) and metrics[metric].notna().any()
        ]
        for p in ("p_t", "p_sign_flip"):
            for row, corrected in zip(section, holm([row[p] for row in section]), strict=True):
                row[f"{p}_holm"] = float(corrected)
        rows += [row | {"verdict": verdict(row)} for row in section]
    columns = ["experiment", "metric", "method", "n", "difference", "low", "high", "p_t", "p_t_holm"]
    return pd.DataFrame(rows, columns=[*columns, "p_sign_flip", "p_sign_flip_holm", "verdict"])


def _row(experiment: str, metric: str, method: Any, differences: "pd.Series[float]") -> dict[str, Any]:
    found = paired(differences)
    return {
        "experiment": experiment,
        "metric": metric,
        "method": str(method),
        "n": found.n,
        "difference": found.mean,
        "low": found.interval.low,
        "high": found.interval.high,
        "p_t": found.p_t,
        "p_sign_flip": found.p_sign_flip,
    }


def verdict(row: dict[str, Any]) -> str:
    """What a row of `compare` says, in words."""
    if math.isnan(row["p_t_holm"]):
        return f"too few seeds in common ({row['n']}) to tell"
    if row["p_t_holm"] >= LEVEL:
        return "cannot be told apart"
    better = (row["difference"] > 0) == (row["metric"] == "acc")
    return f"{OURS} is better" if better else f"{row['method']} is better"


def best_of(metrics: pd.DataFrame, metric: str, end: str) -> list[str]:
    """The methods of one experiment that cannot be told from the one with the best mean (`end`: "max" or "min").

    By Student's paired test, Holm-corrected over the others. References do not count, nor do methods with too few
    seeds; there is no best of a single method.
    """
    values = metrics[~metrics["method"].isin(REFERENCES)].pivot(index="seed", columns="method", values=metric)
    means = values.loc[:, values.count() >= SEEDS_OF_INTERVAL].mean()
    if len(means) < 2:
        return []
    best = means.idxmax() if end == "max" else means.idxmin()
    others = [method for method in means.index if method != best]
    ahead = [paired((values[best] - values[method]).dropna() * (1 if end == "max" else -1)) for method in others]
    tests = np.array([test.p_t for test in ahead])
    tested = ~np.isnan(tests)  # enough seeds in common with the best
    worse = (holm(tests) < LEVEL) & [test.mean > 0 for test in ahead]  # the best of all seeds may not be that of these
    kept = [str(method) for method, is_kept in zip(others, tested & ~worse, strict=True) if is_kept]
    return [str(best), *kept] if tested.any() else []


def interquartile_means(runs: Runs) -> pd.DataFrame:
    """Of one experiment's scores after the last task: method, n (seeds), iqm of tasks and seeds, low, high."""
    last = last_scores(normalised_scores(runs))
    rows = []
    for method in runs.methods():
        scores = last[last["method"] == method].pivot(index="seed", columns="task", values="score").to_numpy()
        interval = interquartile_interval(scores)
        rows.append((method, len(scores), interquartile_mean(scores), *interval))
    return pd.DataFrame(rows, columns=["method", "n", "iqm", "low", "high"])
