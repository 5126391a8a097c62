"""Bits as the currency: the accuracy after each task, and all bits that a method needs for it.

These are the network's weights, in float32, with the heads of the tasks learned so far, and what the method keeps
beside them: frozen bits, importances, masks, bases, copies. Joint training keeps all images, which nobody counts here:
it is left out. Weights that BLIP has consolidated are numbers of a sign
and k bits; what they take written so is counted too, exactly, but not compressed (`blip export` does that).
"""

import pandas as pd

from blip.results.loading import JOINT, KEYS, SINGLE_TASK, Runs
from blip.results.markup import markdown_table, plain
from blip.results.metrics import score_name, seen_scores

WEIGHT = 32
"""Bits of a number as it is computed with."""


def bits_needed(runs: Runs) -> pd.DataFrame:
    """A row for each run and task learned: `score`, the mean share on the tasks so far, and bits.

    `weights` as float32 and `method`, what it keeps beside them, and `needed`, their sum; `frozen`, the weights with
    consolidated ones in sign and frozen bits, nan for methods that freeze none. None of joint training, nor of
    a run without `memory.csv`. Of single-task `method` is the networks of earlier tasks: it keeps the present one twice
    and the initial one, which the seed gives, too.
    """
    scores = seen_scores(runs)
    scores = scores[scores["method"] != JOINT]
    if "memory" not in runs.tables:
        return pd.DataFrame(columns=[*KEYS, "task_learned", "score", "weights", "method_bits", "needed", "frozen"])
    frame = scores.merge(runs.tables["memory"], on=[*KEYS, "task_learned"])
    frame = frame.merge(runs.runs[[*KEYS, "shared_numbers", "numbers_by_task"]], on=KEYS)
    heads = [sum(by[: t + 1]) for by, t in zip(frame["numbers_by_task"], frame["task_learned"], strict=True)]
    frame["weights"] = WEIGHT * (frame["shared_numbers"] + heads)
    earlier = frame["task_learned"] / (frame["task_learned"] + 2)  # of as many networks, all of one size
    frame["method_bits"] = 8 * frame["bytes"] * earlier.where(frame["method"] == SINGLE_TASK, 1)
    frame["needed"] = frame["weights"] + frame["method_bits"]
    frame = frame.merge(_saved(runs), "left", on=[*KEYS, "task_learned"])
    frame["frozen"] = frame["weights"] - frame["saved"]
    return frame[[*KEYS, "task_learned", "score", "weights", "method_bits", "needed", "frozen"]]


def _saved(runs: Runs) -> pd.DataFrame:
    """Bits that consolidated weights take less than as float32."""
    if "bits" not in runs.tables:
        return pd.DataFrame(columns=[*KEYS, "task_learned", "saved"])
    bits = runs.tables["bits"]
    written = (bits["frozen_bits"] + 1).where(bits["frozen_bits"] > 0, 0)  # a sign; nothing of what is 0
    saved = bits.assign(saved=(WEIGHT - written) * bits["parameters"])
    return saved.groupby([*KEYS, "task_learned"])["saved"].sum().reset_index()


def left_out(runs: Runs) -> str:
    """A sentence on the method that is not there; empty where no run is of it."""
    return f" Without {JOINT}, which keeps all images." if JOINT in runs.methods() else ""


def spread(needed: pd.DataFrame) -> pd.DataFrame:
    """Over seeds: experiment, method, task_learned, n, mean and std of the score in percent, mean bits."""
    groups = needed.groupby(["experiment", "method", "task_learned"], sort=False)
    score = 100 * groups["score"].agg(["mean", "std"])
    bits = groups[["weights", "method_bits", "needed", "frozen"]].mean().add_suffix("_mean")
    return pd.concat([groups.size().rename("n"), score.add_prefix("score_percent_"), bits], axis=1).reset_index()


def section(runs: Runs, table: pd.DataFrame) -> str:
    """The bits of one experiment after its last task in Markdown; empty where there are none."""
    if table.empty:
        return ""
    last = table[table["task_learned"] == table["task_learned"].max()].set_index("method")
    rows = []
    for method in [method for method in runs.methods() if method in last.index]:
        row = last.loc[method]
        shown = [row["weights_mean"], row["method_bits_mean"], row["needed_mean"], row["frozen_mean"]]
        cells = ["–" if pd.isna(bits) else f"{bits / 1e6:,.3f}" for bits in shown]
        score = row["score_percent_mean"]
        rows.append([plain(method), row["n"], "–" if pd.isna(score) else f"{score:.2f}", *cells])
    heads = ("method", "n", f"{score_name(runs)} %", "weights", "kept beside", "all", "weights in frozen bits")
    text = "Millions of bits that each method needs after the last task: weights in float32, what it keeps beside them"
    text += f", and both; and the weights in sign and frozen bits alone.{left_out(runs)}"
    return f"{text}\n\n{markdown_table(rows, heads)}\n"
