"""Consolidated parameters in their sign and frozen bits alone: as bytes, and back to the same float32 numbers.

After consolidation θ = ±B·j/2^k with a whole j ≤ 2^k and k frozen bits; 0 where k = 0. Of each parameter with k > 0 its
sign and the k + 1 binary digits of j/2^k are written, the first of which, before the point, is 1 for θ = ±B alone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_BITS = 24
"""That a parameter can have frozen: j then still is a float32."""


def pack(value: Tensor, bits: Tensor, bound: float) -> bytes:
    """Consolidated parameters of any shape, float32, with their frozen bits k, uint8, in the range ±`bound`.

    First k of each, a byte; then, as rows of bits filled up to whole bytes, the signs of those with k > 0 and one place
    of all digits after another, each of the parameters that have it. Parameters are in the order of their k. Raises
    ValueError where a parameter is no multiple of B·2^-k: it was not consolidated.
    """
    places = bits.cpu().flatten().numpy()
    order = np.argsort(places, kind="stable")
    ordered, values = places[order], value.detach().cpu().flatten().numpy()[order]
    if value.dtype != torch.float32 or places.max(initial=0) > MOST_BITS:
        raise ValueError(f"expected float32 parameters with at most {MOST_BITS} frozen bits")
    signs, digits = _digits(values, ordered, bound)
    rows = [np.packbits(signs[ordered > 0])]
    for place, those in _places(ordered):
        shift = ordered[those] - place
        rows.append(np.packbits((digits[those] >> shift & 1).astype(bool)))
    return places.tobytes() + b"".join(row.tobytes() for row in rows)


def unpack(data: bytes, shape: tuple[int, ...], bound: float) -> tuple[Tensor, Tensor, int]:
    """What was packed: parameters, their frozen bits, and how many bytes of `data` they took.

    Raises ValueError where `data` is too short, or cannot have been packed.
    """
    count = int(np.prod(shape, dtype=np.int64))
    places = _bytes(data, 0, count).copy()
    if places.max(initial=0) > MOST_BITS:
        raise ValueError(f"{places.max()} frozen bits, expected at most {MOST_BITS}")
    order = np.argsort(places, kind="stable")
    ordered, at = places[order], count
    signs, digits = np.zeros(count, bool), np.zeros(count, np.int32)
    signs[ordered > 0], at = _row(data, at, int((ordered > 0).sum()))
    for place, those in _places(ordered):
        row, at = _row(data, at, int(those.sum()))
        digits[those] |= row.astype(np.int32) << (ordered[those] - place)
    if (digits > 1 << ordered.astype(np.int32)).any():
        raise ValueError("a parameter outside of its range")
    values, bits = np.empty(count, np.float32), torch.from_numpy(places)
    values[order] = _values(signs, digits, ordered, bound)
    return torch.from_numpy(values).view(shape), bits.view(shape), at


def _digits(values: NDArray[np.float32], bits: NDArray[np.uint8], bound: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Signs and whole numbers j; of j that give the same float32, any."""
    signs = np.signbit(values)
    with np.errstate(invalid="ignore"):
        exact = np.rint(np.abs(values.astype(np.float64)) / np.float64(np.float32(bound)) * 2.0**bits)
    nearest = np.where(np.isfinite(exact), exact, -1).clip(-1, 2**MOST_BITS).astype(np.int32)
    digits = np.full(len(values), -1, np.int32)
    for candidate in (nearest - 1, nearest + 1, nearest):  # at the last of 24 bits rounding may have moved it by one
        fits = (candidate >= 0) & (candidate <= 1 << bits.astype(np.int32))
        found = _values(signs, np.where(fits, candidate, 0), bits, bound).view(np.int32) == values.view(np.int32)
        digits = np.where(fits & found, candidate, digits)
    if (digits < 0).any():
        wrong = int(np.argmax(digits < 0))
        raise ValueError(f"{values[wrong]} is no number of {bits[wrong]} bits in the range ±{bound}")
    return signs, digits


def _values(
    signs: NDArray[np.bool_], digits: NDArray[np.int32], bits: NDArray[np.uint8], bound: float
) -> NDArray[np.float32]:
    """±B·j/2^k, rounded once, as `blip.core.formulas.quantise` does; 0 has a sign where k > 0."""
    share = digits.astype(np.float32) / np.exp2(bits.astype(np.float32))
    values: NDArray[np.float32] = np.where(signs, -share, share) * np.float32(bound)
    return np.where(bits == 0, np.float32(0), values)


def _places(ordered: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The places of digits, from the one before the point on, and which parameters have them."""
    for place in range(int(ordered.max(initial=0)) + 1):
        those = ordered >= max(place, 1)
        if those.any():
            yield place, those


def _bytes(data: bytes, at: int, count: int) -> NDArray[np.uint8]:
    if at + count > len(data):
        raise ValueError("too short")
    return np.frombuffer(data, np.uint8, count, at)


def _row(data: bytes, at: int, count: int) -> tuple[NDArray[np.bool_], int]:
    """`count` bits, and where the next row begins."""
    length = -(-count // 8)
    return np.unpackbits(_bytes(data, at, length), count=count).astype(bool), at + length
