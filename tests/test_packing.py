"""Parameters in their sign and frozen bits alone: any of them, back and forth, bit by bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from blip.core.formulas import quantise
from blip.core.packing import MOST_BITS, pack, unpack

shapes = st.one_of(st.just((0,)), st.just((3, 0)), array_shapes(min_dims=1, max_dims=4, max_side=5))
bounds = st.one_of(
    st.floats(1e-37, 1e37), st.floats(np.finfo(np.float32).smallest_normal, 1e-36), st.sampled_from([1.0, 6 / 28, 0.75])
)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


@given(st.data(), shapes, bounds)
def test_any_bits_bounds_and_shapes_back_and_forth(data: st.DataObject, shape: tuple[int, ...], bound: float) -> None:
    bits = torch.from_numpy(data.draw(arrays(np.uint8, shape, elements=st.integers(0, MOST_BITS))))
    shares = st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, -0.0, 0.0, 1.0, 1e-9, -1e-9, 0.5, 1 - 2**-24]))
    share = torch.from_numpy(data.draw(arrays(np.float64, shape, elements=shares)))
    value = quantise((share * bound).float().clamp(-bound, bound), bits, bound)
    packed = pack(value, bits, bound)
    back, used = unpack(packed + b"rest", shape, bound)
    assert same_bits(back, value), "zeros with their signs too"
    assert used == len(packed)


@given(st.binary(max_size=60), st.integers(0, 12))
def test_bytes_that_nobody_packed_are_refused_or_are_numbers_in_range(data: bytes, count: int) -> None:
    try:
        value, used = unpack(data, (count,), 2.0)
    except ValueError:
        return
    assert used <= len(data)
    assert bool((value.abs() <= 2).all())
    bits = torch.full((count,), data[0], dtype=torch.uint8)
    assert same_bits(unpack(pack(value, bits, 2.0), (count,), 2.0)[0], value)


def test_only_signs_and_frozen_bits_are_written() -> None:
    bits = torch.full((800,), 3, dtype=torch.uint8)
    value = quantise(torch.linspace(-1, 1, 800), bits, 1.0)
    assert len(pack(value, bits, 1.0)) == 1 + 100 * (1 + 1 + 3), "k, sign, the place before the point, three places"
    assert len(pack(torch.zeros(800), torch.zeros(800, dtype=torch.uint8), 1.0)) == 1, "nothing of what is 0"


@pytest.mark.parametrize("value", [0.3, float("nan"), float("inf"), 1.5, -1.25, 1e-30])
def test_what_was_not_consolidated_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"is no number of 2 bits in the range ±1\.0"):
        pack(torch.tensor([0.25, value]), torch.tensor([2, 2], dtype=torch.uint8), 1.0)
    with pytest.raises(ValueError, match="is no number of 0 bits"):
        pack(torch.tensor([0.5]), torch.tensor([0], dtype=torch.uint8), 1.0)
