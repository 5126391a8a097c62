"""The formulas: what they promise for every input, and float32 against a float64 reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blip.core import formulas as q

MAX_BITS = 20
FEW = settings(max_examples=50, deadline=None)

bounds = st.floats(0.01, 10)
tasks = st.integers(0, 20)
shares = st.lists(st.floats(-1, 1), min_size=1, max_size=20)
"""Values as shares of B"""
ratios = st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=20)
"""Fisher information as multiples of the running one"""
priors = st.floats(1e-18, 1e3)


def bits_for(values: Tensor, seed: int, low: int = 0, high: int = MAX_BITS) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, values.shape, generator=random).to(torch.uint8)


def rounding(bound: float) -> float:
    """What a few float32 operations on numbers up to `bound` may be off."""
    return 4 * bound * 2.0**-24


@FEW
@given(st.lists(st.tuples(st.integers(0, 20), st.floats(-50, 50)), min_size=1), st.integers(1, 24))
def test_bits_never_fall_and_stay_between_0_and_q(cases: list[tuple[int, float]], max_bits: int) -> None:
    before = torch.tensor([min(k, max_bits) for k, _ in cases], dtype=torch.uint8)
    gain = torch.tensor([g for _, g in cases])
    after = q.grow_bits(before, gain, max_bits)
    assert after.dtype == torch.uint8
    assert (after >= before).all()
    assert (after <= max_bits).all()
    assert torch.equal(after[gain <= 0], before[gain <= 0])
    below = (gain > 0) & (before < max_bits)
    assert (after[below] > before[below]).all()


def test_bits_grow_by_the_gain_rounded_up() -> None:
    before = torch.tensor([3, 3, 3, 3, 19, 0], dtype=torch.uint8)
    gain = torch.tensor([0.0, 0.001, 1.0, 1.001, 7.0, math.inf])
    assert q.grow_bits(before, gain, 20).tolist() == [3, 4, 4, 5, 20, 20]


@FEW
@given(shares, bounds, st.integers(0, 999))
def test_quantised_values_lie_on_the_grid_at_most_half_a_step_away(share: list[float], B: float, seed: int) -> None:
    value = torch.tensor(share) * B
    bits = bits_for(value, seed, low=1)
    step = B * torch.exp2(-bits.double())
    quantised = q.quantise(value, bits, B).double()
    assert ((quantised - value.double()).abs() <= step / 2 + rounding(B)).all()
    off_grid = quantised - (quantised / step).round() * step
    assert (off_grid.abs() <= rounding(B)).all()
    assert (quantised.abs() <= B + rounding(B)).all()


@FEW
@given(shares, bounds, st.integers(0, 999))
def test_quantising_twice_changes_nothing(share: list[float], B: float, seed: int) -> None:
    value = torch.tensor(share) * B
    bits = bits_for(value, seed)
    once = q.quantise(value, bits, B)
    assert torch.equal(q.quantise(once, bits, B), once)


@FEW
@given(shares, bounds)
def test_parameters_without_frozen_bits_are_reset_to_zero(share: list[float], B: float) -> None:
    value = torch.tensor(share) * B
    assert torch.equal(q.quantise(value, torch.zeros(value.shape, dtype=torch.uint8), B), torch.zeros_like(value))


@pytest.mark.parametrize(
    ("value", "bits", "expected"),
    [(0.3, 1, 0.5), (0.2, 1, 0.0), (0.8, 1, 1.0), (-0.8, 2, -0.75), (0.7, 0, 0.0), (-1.0, 20, -1.0), (0.3, 3, 0.25)],
)
def test_quantised_values_worked_out_by_hand(value: float, bits: int, expected: float) -> None:
    k = torch.tensor([bits], dtype=torch.uint8)
    assert q.quantise(torch.tensor([value]), k, 1.0).item() == expected
    assert q.quantise(torch.tensor([4 * value]), k, 4.0).item() == 4 * expected


@FEW
@given(shares, bounds, st.integers(0, 999))
def test_allowed_range_holds_the_anchor_and_is_two_steps_wide(share: list[float], B: float, seed: int) -> None:
    value = torch.tensor(share) * B
    bits = bits_for(value, seed)
    anchor = q.quantise(value, bits, B)
    low, high = q.allowed_range(anchor, bits, B, MAX_BITS)
    limit = q.range_limit(B, MAX_BITS)
    assert (low <= high).all()
    inside = anchor.clamp(-limit, limit)
    assert ((low <= inside) & (inside <= high)).all()
    assert ((high - low).double() <= 2 * B * torch.exp2(-bits.double()) + rounding(B)).all()
    assert (torch.maximum(low.abs(), high.abs()) <= limit).all()


def test_allowed_range_worked_out_by_hand() -> None:
    anchor = torch.tensor([0.0, 0.5, 1.0, -1.0])
    low, high = q.allowed_range(anchor, torch.tensor([0, 1, 2, 2], dtype=torch.uint8), 1.0, 3)
    assert low.tolist() == [-0.875, 0.0, 0.75, -0.875]
    assert high.tolist() == [0.875, 0.875, 0.875, -0.75]


@FEW
@given(priors, tasks)
def test_no_gain_where_the_task_says_what_is_known(F: float, t: int) -> None:
    fisher = torch.tensor([F])
    # (F + (t+1)·F) / ((t+2)·F) is 1 but for the last bits of float32.
    assert q.information_gain(fisher, fisher, t).abs().item() < 1e-6


@FEW
@given(ratios, priors, tasks)
def test_gain_is_positive_only_where_the_task_says_more(ratio: list[float], F: float, t: int) -> None:
    ratio = [r for r in ratio if abs(r - 1) > 1e-3 * (t + 2)] or [2.0]  # apart from 1 by more than float32 rounds
    running = torch.full((len(ratio),), F)
    gain = q.information_gain(running * torch.tensor(ratio), running, t)
    assert torch.equal(gain > 0, torch.tensor(ratio) > 1)


@FEW
@given(ratios, priors, tasks)
def test_gain_grows_with_the_fisher_information(ratio: list[float], F: float, t: int) -> None:
    fisher = F * torch.tensor(sorted(ratio))
    gain = q.information_gain(fisher, torch.full_like(fisher, F), t)
    assert (gain.diff() >= 0).all()


@FEW
@given(ratios, priors, tasks)
def test_running_fisher_lies_between_the_old_and_the_new(ratio: list[float], F: float, t: int) -> None:
    running = torch.full((len(ratio),), F)
    fisher = running * torch.tensor(ratio)
    updated = q.update_running_fisher(fisher, running, t)
    tolerance = 1 + 1e-6
    assert (updated >= torch.minimum(fisher, running) / tolerance).all()
    assert (updated <= torch.maximum(fisher, running) * tolerance).all()


def test_running_fisher_is_the_mean_over_the_prior_and_all_tasks() -> None:
    fishers = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    running = fishers[0]
    for t, fisher in enumerate(fishers[1:]):
        running = q.update_running_fisher(fisher, running, t)
    torch.testing.assert_close(running, fishers.mean(0))


@FEW
@given(ratios, st.floats(0.01, 10), priors, tasks, st.integers(0, 999))
def test_float32_agrees_with_a_float64_reference(ratio: list[float], B: float, F: float, t: int, seed: int) -> None:
    """The formulas of the paper, written out once more in numpy and float64."""
    random = np.random.default_rng(seed)
    running32 = torch.full((len(ratio),), F)
    fisher32 = running32 * torch.tensor(ratio)
    value32 = torch.from_numpy(random.uniform(-B, B, len(ratio)).astype(np.float32))
    bits32 = bits_for(value32, seed)
    running, fisher, value = (v.double().numpy() for v in (running32, fisher32, value32))

    gain = 0.5 * np.log2((fisher + (t + 1) * running) / ((t + 2) * running))
    gain32 = q.information_gain(fisher32, running32, t).numpy()
    np.testing.assert_allclose(gain32, gain, rtol=1e-6, atol=1e-6)

    clear = np.abs(gain - np.round(gain)) > 1e-5  # not where rounding decides between two ceilings
    bits = np.minimum(bits32.numpy() + np.maximum(np.ceil(gain), 0), MAX_BITS)
    grown = q.grow_bits(bits32, torch.from_numpy(gain32), MAX_BITS).numpy()
    np.testing.assert_array_equal(grown[clear], bits[clear])

    bits = grown.astype(float)
    levels = value / B * 2**bits
    quantised = np.where(bits == 0, 0, B * np.round(levels) / 2**bits)
    quantised32 = q.quantise(value32, torch.from_numpy(grown), B).numpy()
    clear = np.abs(levels - np.floor(levels) - 0.5) > 0.2  # not halfway between two values of the grid
    np.testing.assert_allclose(quantised32[clear], quantised[clear], rtol=0, atol=rounding(B))

    running = ((t + 1) * running + fisher) / (t + 2)
    np.testing.assert_allclose(q.update_running_fisher(fisher32, running32, t).numpy(), running, rtol=1e-6)


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-126, 128, dtype=torch.int32)
    assert q._power_of_two(exponents).tolist() == [2.0**k for k in range(-126, 128)]
