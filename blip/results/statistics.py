"""Whether a difference is real: tests of paired runs, and intervals that stay inside a measure's bounds.

Runs are paired by seed: two methods with one seed have the same data, initial weights and order of batches. scipy does
the statistics; Holm's correction, which it lacks, is here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.05
"""Of all tests, and one minus the coverage of all intervals."""
SEEDS_OF_INTERVAL = 5
"""Fewer seeds than this, or pairs of runs with one, are said to be too few: no interval, test or bold of theirs.

With three, Student's interval is ±2.5 standard deviations and hardly any difference lies outside of it; with five it is
±1.2. Intervals by resampling hold the true mean in 73 % of cases with three, 84 % with five, 93 % with twenty."""
SEEDS_OF_SIGN_FLIP = 6
"""With fewer pairs the exact test cannot reach 5 %: with five its smallest p is 2/2⁵ = 6 %."""
RESAMPLES = 2000
LARGEST_EXACT = 30
"""So many pairs at most have all flips of their signs counted."""


class Interval(NamedTuple):
    """Of 95 %; nan where there are too few values."""

    low: float
    high: float


NONE = Interval(math.nan, math.nan)


class Paired(NamedTuple):
    """The mean of n differences between pairs, and how sure it is."""

    n: int
    mean: float
    interval: Interval
    """Student's t; nan for fewer than `SEEDS_OF_INTERVAL` pairs."""
    p_t: float
    """Of Student's paired test, two-sided; nan for fewer than `SEEDS_OF_INTERVAL` pairs."""
    p_sign_flip: float
    """Of the exact permutation test that flips signs, two-sided; nan for fewer than `SEEDS_OF_SIGN_FLIP` pairs."""


def paired(differences: ArrayLike) -> Paired:
    """Statistics of differences between paired runs, (n,)."""
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n < SEEDS_OF_INTERVAL:
        return Paired(n, float(d.mean()) if n else math.nan, NONE, math.nan, math.nan)
    mean, error = float(d.mean()), float(stats.sem(d))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    equal = 0.0 if mean else 1.0  # all differences are: certain, whatever it is
    p_t = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else equal
    p_sign_flip = sign_flip(d) if n >= SEEDS_OF_SIGN_FLIP else math.nan
    return Paired(n, mean, Interval(mean - half, mean + half), p_t, p_sign_flip)


def sign_flip(differences: NDArray[np.float64]) -> float:
    """Two-sided p of the hypothesis that each difference is as likely as its negative.

    Exact, over all 2ⁿ flips, up to n = 30; by 9,999 random ones beyond.
    """
    n = len(differences)
    if n > LARGEST_EXACT:
        return float(_random_flips(differences))
    # |a + b| over the sums a of all flips of one half, and b of the other: 2ⁿ of them, of 2·2^(n/2) numbers.
    a, b = (_flipped_sums(half) for half in np.array_split(differences, 2))
    observed = abs(differences.sum()) * (1 - 1e-12)  # ties are ties, whatever the rounding
    if not observed:
        return 1.0
    b.sort()
    reached = len(b) - np.searchsorted(b, observed - a, "left") + np.searchsorted(b, -observed - a, "right")
    return float(reached.sum() / 2**n)


def _flipped_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the values with all combinations of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_flips(differences: NDArray[np.float64]) -> float:
    options = {"permutation_type": "samples", "n_resamples": 9999, "rng": np.random.default_rng(0)}
    return float(stats.permutation_test((differences,), np.mean, vectorized=True, **options).pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's correction for testing all of these at once (Holm 1979); nan stays nan and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan is sorted to the end
    corrected = np.full_like(p, math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def bootstrap_interval(values: ArrayLike, of: Callable[..., NDArray[np.float64]] = np.mean) -> Interval:
    """Of the mean, or what else is asked `of` them, such as `numpy.median`, by resampling the values (percentiles).

    Never outside what was seen, so within any bounds.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if len(x) < SEEDS_OF_INTERVAL:
        return NONE
    return _bootstrap(of(np.random.default_rng(0).choice(x, (RESAMPLES, len(x))), axis=1))


def interquartile_mean(scores: NDArray[np.float64]) -> float:
    """Mean of the middle half of all scores (Agarwal et al. 2021); nan where one is nan."""
    return math.nan if np.isnan(scores).any() else float(stats.trim_mean(scores, 0.25, axis=None))


def interquartile_interval(scores: NDArray[np.float64]) -> Interval:
    """Of the interquartile mean of scores (seeds, tasks), by resampling the seeds of each task by themselves.

    nan with fewer than `SEEDS_OF_INTERVAL` seeds, or a score that is nan.
    """
    seeds, tasks = scores.shape
    if seeds < SEEDS_OF_INTERVAL or np.isnan(scores).any():
        return NONE
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds, tasks))
    resampled = scores[drawn, np.arange(tasks)]
    return _bootstrap(stats.trim_mean(resampled.reshape(RESAMPLES, -1), 0.25, axis=1))


def _bootstrap(statistics: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(statistics, [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(float(low), float(high))
