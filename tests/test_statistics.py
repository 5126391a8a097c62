"""Statistics over seeds, against other implementations and by what they promise."""

import itertools
import json
import math
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blip.results import statistics as s
from blip.results.markup import measured, p_value, points

FEW = settings(max_examples=30, deadline=None)
numbers = st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6)


@FEW
@given(st.lists(numbers, min_size=5, max_size=9))
def test_paired_differences_are_tested_as_scipy_tests_pairs(values: list[float]) -> None:
    d = np.array(values)
    found = s.paired(d)
    assert found.n == len(d)
    assert found.mean == pytest.approx(d.mean())
    if d.std() > 1e-9:
        reference = stats.ttest_rel(d, np.zeros(len(d)))
        assert found.p_t == pytest.approx(float(reference.pvalue))
        assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
        inside = found.interval.low <= 0 <= found.interval.high
        assert inside == (found.p_t >= 0.05) or found.p_t == pytest.approx(0.05)
    assert math.isnan(found.p_sign_flip) == (len(d) < 6)


@FEW
@given(st.lists(numbers, min_size=6, max_size=9))
def test_the_sign_flip_test_counts_all_flips(values: list[float]) -> None:
    d = np.array(values)
    means = [abs(np.mean(d * signs)) for signs in itertools.product((1, -1), repeat=len(d))]
    expected = np.mean(np.array(means) >= abs(d.mean()) * (1 - 1e-12))
    assert s.sign_flip(d) == pytest.approx(expected, abs=2 * 2.0 ** -len(d)), "ties are counted up to rounding"


@pytest.mark.parametrize("n", [6, 7, 14])
def test_the_sign_flip_test_is_that_of_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    reference = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert s.sign_flip(d) == pytest.approx(reference.pvalue, abs=1e-12)


def test_twenty_seeds_are_tested_exactly_and_hundreds_at_random() -> None:
    assert s.sign_flip(np.arange(1.0, 21)) == 2 / 2**20
    assert s.sign_flip(np.append(np.arange(1.0, 20), -1)) > 2 / 2**20
    assert s.sign_flip(np.ones(200)) == pytest.approx(1 / 5000)


def test_the_smallest_p_of_the_sign_flip_test_is_two_flips() -> None:
    assert s.sign_flip(np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 2**6
    assert s.paired([1.0, 2, 3, 4, 5, 6]).p_sign_flip < s.LEVEL
    assert s.sign_flip(np.array([1.0, 2, 3, 4, 5])) == 2 / 2**5 > s.LEVEL, "five seeds cannot show anything"


def test_differences_that_are_all_equal_are_certain() -> None:
    assert s.paired([0.5] * 5).p_t == 0
    assert s.paired([0.0] * 5).p_t == 1


def test_four_pairs_tell_nothing() -> None:
    found = s.paired([0.4, 0.5, 0.5, 0.6])
    assert found[:2] == (4, 0.5)
    assert all(map(math.isnan, (*found.interval, found.p_t, found.p_sign_flip)))
    assert math.isnan(s.paired([]).mean)


def test_holm_worked_out_by_hand() -> None:
    corrected = s.holm([0.01, 0.04, math.nan, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, math.nan, 0.06, 0.02])
    assert s.holm([0.9, 0.8]).tolist() == [1, 1]


@FEW
@given(st.lists(st.floats(0, 1), min_size=5, max_size=20))
def test_bootstrap_intervals_hold_the_mean_and_stay_inside_what_was_seen(values: list[float]) -> None:
    low, high = s.bootstrap_interval(values)
    assert min(values) - 1e-12 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= max(values) + 1e-12


def test_the_interval_of_a_median_is_not_moved_by_a_few_wild_values() -> None:
    values = [0.9 + 0.01 * i for i in range(13)]
    wild = [*values, 7.0, 9.0]
    low, high = s.bootstrap_interval(wild, of=np.median)
    assert low <= np.median(wild) <= high < max(values)
    assert s.bootstrap_interval(wild).high > max(values), "that of the mean is"


def test_bootstrap_intervals_are_those_of_scipy_and_missing_for_few_values() -> None:
    values = np.random.default_rng(1).beta(8, 1, 12)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert s.bootstrap_interval(values) == pytest.approx((reference.low, reference.high), abs=0.01)
    assert math.isnan(s.bootstrap_interval(values[:4]).low)
    assert not math.isnan(s.bootstrap_interval([*values[:5], math.nan]).low)


SCORES = np.random.default_rng(0).gamma(2, 0.3, (8, 6))
"""Of eight seeds in six games."""


def test_interquartile_means_and_their_intervals_are_those_of_rliable() -> None:
    """Numbers that rliable 1.2.0 gave, which does not import with the tested version of pandas."""
    assert s.interquartile_mean(SCORES) == pytest.approx(0.48343747833515033)
    assert s.interquartile_interval(SCORES) == pytest.approx((0.39500135, 0.59144651), abs=0.01)
    assert math.isnan(s.interquartile_interval(SCORES[:4]).low)
    assert not math.isnan(s.interquartile_interval(SCORES[:5]).low)


RLIABLE = """\
import json, sys
import numpy as np
from rliable import library, metrics
scores = {"x": np.array(json.load(sys.stdin))}
means, intervals = library.get_interval_estimates(
    scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=10_000, random_state=np.random.RandomState(0)
)
print(json.dumps([means["x"][0], *intervals["x"][:, 0]]))
"""


@pytest.mark.reference
def test_rliable_itself_gives_the_same() -> None:
    """In an environment of its own: `make reference-test`."""
    python = ROOT / "build/reference/bin/python"
    command = [python, "-W", "ignore", "-c", RLIABLE]
    run = subprocess.run(command, input=json.dumps(SCORES.tolist()), check=True, capture_output=True, text=True)
    mean, low, high = json.loads(run.stdout)
    assert s.interquartile_mean(SCORES) == pytest.approx(mean)
    assert s.interquartile_interval(SCORES) == pytest.approx((low, high), abs=0.01)


def test_a_difference_that_rounds_to_zero_says_on_which_side_it_is() -> None:
    assert [points(d) for d in (0.012, -3.4e-5, 3.4e-5, 0.0, -0.0, -1e-17)] == [
        *("+1.20", "-0.00", "+0.00", "+0.00", "+0.00", "+0.00"),
    ]


def test_no_test_gives_a_p_of_zero() -> None:
    assert [p_value(p) for p in (0.0, 9e-4, 1e-3, 0.25, math.nan)] == ["< 0.001", "< 0.001", "0.001", "0.250", "–"]


def test_percent_and_points_have_two_decimals_and_others_four_digits() -> None:
    shown = [measured(-0.01697, "points"), measured(-0.001, "%"), measured(1.7263, "×"), measured(2, "points", "+")]
    assert shown == ["-0.02", "0.00", "1.726", "+2.00"]
