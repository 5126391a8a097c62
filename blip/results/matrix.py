"""Metrics of continual learning, as pure functions of a matrix of scores.

R[i, j] is the score (such as the accuracy in [0, 1]) on task j after learning task i (0-based, T tasks); it is nan
above the diagonal. Where there is no earlier task (T = 1), measures of forgetting are nan.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip.errors import BlipError

Matrix = NDArray[np.float64]


def score_matrix(frame: pd.DataFrame, column: str = "score") -> Matrix:
    """R from the long table of one run (columns task_learned, task and the score's).

    Raises BlipError unless each entry of the lower triangle is there once, with a number.
    """
    T = frame["task_learned"].nunique()
    found = sorted(zip(frame["task_learned"].tolist(), frame["task"].tolist(), strict=True))
    if not T or found != [(i, j) for i in range(T) for j in range(i + 1)] or frame[column].isna().any():
        raise BlipError(
            f"expected one {column} for every task up to task_learned, for task_learned = 0, 1, …; "
            f"found {frame[column].count()} for {T} tasks"
        )
    return as_matrix(frame, column)


def as_matrix(frame: pd.DataFrame, column: str = "score") -> Matrix:
    """R, where the frame is known to be complete."""
    return frame.pivot(index="task_learned", columns="task", values=column).to_numpy()


def average(R: Matrix) -> float:
    """ACC: mean score over all tasks after the last one."""
    return float(R[-1].mean())


def just_learned(R: Matrix) -> float:
    """Mean score on each task just after learning it (the diagonal of R)."""
    return float(np.diag(R).mean())


def backward_transfer(R: Matrix) -> float:
    """BWT: mean change on earlier tasks since each was learned (Lopez-Paz & Ranzato 2017); below 0 is forgetting."""
    change = (R[-1] - np.diag(R))[:-1]
    return float(change.mean()) if change.size else float("nan")


def backward_transfer_published(R: Matrix) -> float:
    """BWT as BLIP's published code has it: the same sum divided by T instead of T - 1."""
    return backward_transfer(R) * (len(R) - 1) / len(R)


def forgetting(R: Matrix) -> float:
    """Mean drop on earlier tasks from their best score before the last task (Chaudhry et al. 2018)."""
    earlier = R[:-1, :-1]
    return float((np.fmax.reduce(earlier) - R[-1, :-1]).mean()) if earlier.size else float("nan")
