"""Metrics against numbers worked out by hand, and properties that hold for every accuracy matrix."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip.errors import BlipError
from blip.results import matrix as m
from blip.results.loading import KEYS
from blip.results.metrics import capacity, summarise

NAN = float("nan")
R3 = np.array([[0.9, NAN, NAN], [0.95, 0.8, NAN], [0.7, 0.75, 0.6]])


@st.composite
def matrices(draw: st.DrawFn, least: int = 2) -> m.Matrix:
    """Matrices of accuracies of `least` to 6 tasks, nan above the diagonal."""
    T = draw(st.integers(least, 6))
    R = np.full((T, T), NAN)
    for i, j in zip(*np.tril_indices(T), strict=True):
        R[i, j] = draw(st.floats(0, 1))
    return R


def long(R: m.Matrix) -> pd.DataFrame:
    """The table of scores that belongs to R."""
    entries = [(i, j, R[i, j]) for i in range(len(R)) for j in range(i + 1)]
    return pd.DataFrame(entries, columns=["task_learned", "task", "score"])


def test_values_worked_out_by_hand() -> None:
    assert m.average(R3) == pytest.approx((0.7 + 0.75 + 0.6) / 3)
    assert m.just_learned(R3) == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert m.backward_transfer(R3) == pytest.approx((-0.2 - 0.05) / 2)
    assert m.backward_transfer_published(R3) == pytest.approx((-0.2 - 0.05) / 3)
    # The best on the first task came one task after learning it.
    assert m.forgetting(R3) == pytest.approx((0.25 + 0.05) / 2)


def test_one_task_has_no_forgetting() -> None:
    R = np.array([[0.8]])
    assert m.average(R) == m.just_learned(R) == 0.8
    for measure in (m.backward_transfer, m.backward_transfer_published, m.forgetting):
        assert math.isnan(measure(R))


@given(matrices())
def test_properties(R: m.Matrix) -> None:
    T, bwt, acc = len(R), m.backward_transfer(R), m.average(R)
    assert m.backward_transfer_published(R) == pytest.approx(bwt * (T - 1) / T)
    assert m.forgetting(R) >= -bwt - 1e-12
    assert 0 <= acc <= 1
    assert -1 <= bwt <= 1
    # What is known at the end is what was learned and the change since.
    assert acc == pytest.approx(m.just_learned(R) + m.backward_transfer_published(R))


@given(matrices(least=1), st.randoms(use_true_random=False))
def test_matrix_does_not_depend_on_the_order_of_rows(R: m.Matrix, random: object) -> None:
    frame = long(R).sample(frac=1, random_state=random.randint(0, 99))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(m.score_matrix(frame), R)


@pytest.mark.parametrize(
    "frame",
    [
        long(R3).drop(index=1),
        pd.concat([long(R3), long(R3).tail(1)]),
        long(R3).assign(score=NAN),
        long(R3).head(0),
    ],
    ids=["missing", "twice", "nan", "empty"],
)
def test_incomplete_matrix(frame: pd.DataFrame) -> None:
    with pytest.raises(BlipError, match="expected one score for every task"):
        m.score_matrix(frame)


def test_capacity_by_hand() -> None:
    bits = pd.DataFrame(
        [(0, "a", 0, 10), (0, "b", 5, 10), (1, "a", 10, 10), (1, "b", 20, 5), (1, "b", 4, 5)],
        columns=["task_learned", "layer", "frozen_bits", "parameters"],
    ).assign(experiment="e", method="blip", seed=0, max_bits=20)
    other = bits[bits["task_learned"] == 0].assign(seed=1, frozen_bits=20)
    shares = capacity(pd.concat([bits, other])).to_dict()
    expected = {(0, 0): 50 / 400, (0, 1): 220 / 400, (1, 0): 1}
    assert shares == {("e", "blip", *place): share for place, share in expected.items()}


counts = st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(1, 1000))


@given(st.lists(counts, min_size=1))
def test_capacity_is_a_share(rows: list[tuple[int, int, int]]) -> None:
    bits = pd.DataFrame(rows, columns=["task_learned", "frozen_bits", "parameters"])
    assert capacity(bits.assign(experiment="e", method="m", seed=0, max_bits=20)).between(0, 1).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_intervals_stay_inside_what_was_seen(values: list[float]) -> None:
    frame = pd.DataFrame({"experiment": "e", "method": "m", "seed": range(len(values)), "acc": values})
    row = summarise(frame).iloc[0]
    assert row["n"] == len(values)
    assert row["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert pd.isna(row["low"]) == pd.isna(row["high"]) == (len(values) < 5)
    if len(values) >= 5:
        assert min(values) - 1e-12 <= row["low"] <= row["mean"] + 1e-12
        assert row["mean"] - 1e-12 <= row["high"] <= max(values) + 1e-12


def test_one_seed_has_no_spread_and_nan_is_not_counted() -> None:
    rows = [("e", "blip", 0, 0.5, NAN), ("e", "sgd", 0, 0.4, 0.1), ("e", "sgd", 1, 0.6, NAN)]
    frame = pd.DataFrame(rows, columns=[*KEYS, "acc", "capacity"])
    summary = summarise(frame).set_index(["method", "metric"])
    assert summary["n"].to_dict() == {
        ("blip", "acc"): 1,
        ("sgd", "acc"): 2,
        ("blip", "capacity"): 0,
        ("sgd", "capacity"): 1,
    }
    assert summary.loc[("sgd", "acc"), "mean"] == pytest.approx(0.5)
    assert summary.loc[("blip", "acc"), ["std", "low"]].isna().all()
    assert summary.loc[("sgd", "capacity"), ["std", "low"]].isna().all()
