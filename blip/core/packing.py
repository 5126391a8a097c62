"""Consolidated parameters in their sign and frozen bits alone: as bytes, and back to the same float32 numbers.

After consolidation θ = ±B·j/2^k with a whole j ≤ 2^k and k frozen bits; 0 where k = 0. Of a tensor the signs are
written and then the binary digits of all j/2^k, one place after another: from the one before the point, which is 1 for
θ = ±B alone, up to the largest k. Beyond its own k a parameter's digits are 0, which compress to nothing; k itself, on
which nothing depends then, is not written.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_BITS = 24
"""That a parameter can have frozen: j then still is a float32."""


def pack(value: Tensor, bits: Tensor, bound: float) -> bytes:
    """Consolidated parameters of any shape, float32, with their frozen bits k, uint8, in the range ±`bound`.

    First the largest k, a byte; then, where it is not 0, rows of bits filled up to whole bytes: the signs, and each
    place of the digits. Raises ValueError where a parameter is no multiple of B·2^-k: it was not consolidated.
    """
    flat, values = bits.cpu().flatten().numpy(), value.detach().cpu().flatten().numpy()
    places = int(flat.max(initial=0))
    if value.dtype != torch.float32 or places > MOST_BITS:
        raise ValueError(f"expected float32 parameters with at most {MOST_BITS} frozen bits")
    signs, digits = _digits(values, flat, bound)
    digits <<= places - flat
    rows = [signs, *(digits >> shift & 1 for shift in range(places, -1, -1))] if places else []
    return bytes([places]) + b"".join(np.packbits(row.astype(bool)).tobytes() for row in rows)


def unpack(data: bytes, shape: tuple[int, ...], bound: float) -> tuple[Tensor, int]:
    """What was packed: parameters, and how many bytes of `data` they took.

    Raises ValueError where `data` is too short, or cannot have been packed.
    """
    count, places = int(np.prod(shape, dtype=np.int64)), int(_bytes(data, 0, 1)[0])
    if places > MOST_BITS:
        raise ValueError(f"{places} frozen bits, expected at most {MOST_BITS}")
    signs, digits = np.zeros(count, bool), np.zeros(count, np.int32)
    at, length = 1, -(-count // 8)
    for row in range(places + 2 if places else 0):
        found = np.unpackbits(_bytes(data, at, length), count=count)
        signs, digits = (signs, digits << 1 | found) if row else (found.astype(bool), digits)
        at += length
    if (digits > 1 << places).any():
        raise ValueError("a parameter outside of its range")
    values = _values(signs, digits, np.full(count, places, np.uint8), bound)
    return torch.from_numpy(values).view(shape), at


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


def _bytes(data: bytes, at: int, count: int) -> NDArray[np.uint8]:
    if at + count > len(data):
        raise ValueError("too short")
    return np.frombuffer(data, np.uint8, count, at)
