"""The network of a finished run of BLIP as a small file: every consolidated weight in its sign and frozen bits alone.

The file: `MAGIC`, then, compressed by lzma, the length of a header (4 bytes, little-endian), the header in JSON, and
the tensors that it names one after another, packed (`blip.core.packing`) or as they are. Reading runs no code of the
file and takes no more memory than its header says.
"""

import json
import lzma
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from torch import Tensor

from blip.core.packing import pack, unpack
from blip.errors import BlipError
from blip.files import atomic_write, read_bytes
from blip.record import BOUND, FROZEN_BITS, RECORD, WEIGHTS, changed_files, read_record
from blip.results.markup import markdown_table
from blip.schema import Schema, first_problem, wrong

MAGIC = b"BLIP bits 2\n"
LARGEST_HEADER = 2**20
MOST_NUMBERS = 2**27
"""That a network in a file may have; five times the largest of this project."""
MOST_BYTES = {"float32": 4, "int64": 8}
"""That one number takes, packed or not; rows of bits are filled up to whole bytes besides."""


class Stored(Schema):
    """A tensor in the file."""

    name: str
    shape: list[NonNegativeInt] = Field(max_length=8)
    dtype: Literal["float32", "int64"] = "float32"
    bound: PositiveFloat | None = None
    """B of a packed one, which lies in ±B; None where it is stored as it is."""

    @model_validator(mode="after")
    def _can_be_packed(self) -> "Stored":
        if self.name == "__metadata__" or not self.name.isprintable():  # nor what cannot be encoded
            raise wrong("expected another name", "name")
        if self.bound is not None and self.dtype != "float32":
            raise wrong("packed, expected float32", "dtype")
        return self

    @property
    def count(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape)


class Header(Schema):
    """Of what run the weights are, and which there are."""

    experiment: str
    method: str
    seed: NonNegativeInt
    key: str
    tensors: list[Stored]

    @field_validator("tensors")
    @classmethod
    def _each_once(cls, tensors: list[Stored]) -> list[Stored]:
        (name, count), *_ = [*Counter(tensor.name for tensor in tensors).most_common(1), ("", 0)]
        if count > 1:
            raise wrong("there twice", name)
        return tensors


class Size(NamedTuple):
    """What the network takes in some form."""

    form: str
    bytes: int
    bits: float
    """Of each shared number."""
    exact: bool
    """Whether it is the same network again."""


def export_run(folder: Path, out: Path) -> list[Size]:
    """Write the network of a finished run to `out`, and check that it comes back bit by bit; its size in other forms.

    Raises BlipError where the run has no weights, or no frozen bits beside them.
    """
    record = read_record(folder)
    if changed := changed_files(folder, record, [WEIGHTS]):
        raise BlipError(f"{folder}: {', '.join(changed)}")
    if out.resolve() in [(folder / name).resolve() for name in (RECORD, *record.files)]:
        raise BlipError(f"{out}: a file of the run itself, expected another one")
    try:
        state = safetensors.torch.load(read_bytes(folder / WEIGHTS))
    except SafetensorError as error:
        raise BlipError(f"{folder / WEIGHTS}: expected the network of a run: {error}") from None
    bits = {name.removeprefix(FROZEN_BITS): k for name, k in state.items() if name.startswith(FROZEN_BITS)}
    if not bits:
        raise BlipError(f"{folder}: no frozen bits in {WEIGHTS}: expected a run of blip, and older ones trained again")
    if alone := [name for name in bits if f"{BOUND}{name}" not in state or name not in state]:
        raise BlipError(f"{folder / WEIGHTS}: {alone[0]}: expected its weights and range beside its frozen bits")
    weights = {name: value for name, value in sorted(state.items()) if not name.startswith((FROZEN_BITS, BOUND))}
    about = {name: getattr(record, name) for name in ("experiment", "method", "seed", "key")}
    try:
        bounds = {name: float(state[f"{BOUND}{name}"]) for name in bits}
        header, payload = _packed(about, weights, bits, bounds)
    except ValidationError as error:
        raise BlipError(f"{folder / WEIGHTS}: {first_problem(error)}") from None
    except (ValueError, RuntimeError) as error:
        raise BlipError(f"{folder / WEIGHTS}: {error}") from None
    content = MAGIC + lzma.compress(_with_header(header, payload), preset=9)
    back = _read(content, out)
    if not (back.keys() == weights.keys() and all(_identical(back[name], weights[name]) for name in weights)):
        raise BlipError(f"{out}: what would be written is not what comes back: expected the same weights")
    atomic_write(out, content)
    return _sizes(weights, bits, len(payload), len(content))


def import_weights(file: Path, out: Path) -> Path:
    """Write the weights of an exported file as safetensors, float32, for `network.load_state_dict`; their path."""
    if out.resolve() == file.resolve():
        raise BlipError(f"{out}: the exported file itself, expected another one")
    atomic_write(out, safetensors.torch.save(read_export(file)))
    return out


def read_export(file: Path) -> dict[str, Tensor]:
    """The network's weights in an exported file. Raises BlipError, one line, where it is none or damaged."""
    return _read(read_bytes(file), file)


def _read(content: bytes, file: Path) -> dict[str, Tensor]:
    expected = f"{file}: expected a network written by blip export"
    if not content.startswith(MAGIC):
        raise BlipError(expected)
    try:
        header, payload = _decompressed(content[len(MAGIC) :])
        return dict(_tensors(header, payload))
    except ValidationError as error:
        raise BlipError(f"{expected}: {first_problem(error)}") from None
    except (lzma.LZMAError, EOFError, ValueError, RecursionError) as error:
        raise BlipError(f"{expected}: {error}") from None


def _packed(
    about: Mapping[str, object], weights: Mapping[str, Tensor], bits: Mapping[str, Tensor], bounds: Mapping[str, float]
) -> tuple[Header, bytes]:
    stored, parts = [], []
    for name, value in weights.items():
        kind = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        stored.append(Stored.model_validate(kind | {"bound": bounds.get(name)}))
        parts.append(pack(value, bits[name], bounds[name]) if name in bits else value.contiguous().numpy().tobytes())
    return Header.model_validate({**about, "tensors": stored}), b"".join(parts)


def _with_header(header: Header, payload: bytes) -> bytes:
    text = header.model_dump_json().encode()
    return len(text).to_bytes(4, "little") + text + payload


def _decompressed(content: bytes) -> tuple[Header, bytes]:
    """Header and payload; nothing is unpacked beyond what the header says."""
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**28)
    data = reader.decompress(content, 4 + LARGEST_HEADER)
    length = int.from_bytes(data[:4], "little")
    if length > min(LARGEST_HEADER, len(data) - 4):
        raise ValueError("too short")
    header = Header.model_validate(json.loads(data[4 : 4 + length]))
    count = sum(tensor.count for tensor in header.tensors)
    if count > MOST_NUMBERS:
        raise ValueError(f"{count:,} numbers, expected at most {MOST_NUMBERS:,}")
    most = 4 + length + sum(64 + MOST_BYTES[tensor.dtype] * tensor.count for tensor in header.tensors)
    while not reader.eof and len(data) <= most:
        more = reader.decompress(b"", most + 1 - len(data))
        if not more and reader.needs_input:
            raise ValueError("too short")
        data += more
    if not reader.eof or reader.unused_data:
        raise ValueError("too long")
    return header, data[4 + length :]


def _tensors(header: Header, payload: bytes) -> Iterator[tuple[str, Tensor]]:
    at = 0
    for tensor in header.tensors:
        if tensor.bound is not None:
            value, used = unpack(payload[at:], tuple(tensor.shape), tensor.bound)
        else:
            used = np.dtype(tensor.dtype).itemsize * tensor.count
            if at + used > len(payload):
                raise ValueError("too short")
            numbers = np.frombuffer(payload, tensor.dtype, tensor.count, at).copy()
            value = torch.from_numpy(numbers).view(tensor.shape)
        at += used
        yield tensor.name, value
    if at != len(payload):
        raise ValueError("too long")


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def _sizes(weights: Mapping[str, Tensor], bits: Mapping[str, Tensor], packed: int, compressed: int) -> list[Size]:
    """Of the network in several forms; whatever has no frozen bits, such as heads, is float32 in all of them."""
    others = sum(value.nbytes for name, value in weights.items() if name not in bits)
    shared = sum(k.numel() for k in bits.values())
    halves = all(torch.equal(weights[name].half().float(), weights[name]) for name in bits)
    eighths = all(torch.equal(_in_eight_bits(weights[name]), weights[name]) for name in bits)
    forms = [("float32", 4 * shared, True), ("float16", 2 * shared, halves)]
    forms.append(("int8 and a scale for each tensor", shared + 4 * len(bits), eighths))
    sizes = [Size(form, size + others, 8 * size / shared, exact) for form, size, exact in forms]
    plain = len(lzma.compress(b"".join(value.numpy().tobytes() for value in weights.values()), preset=9))
    written = {"float32, compressed": plain, "sign and frozen bits": packed}
    for form, size in (written | {"the same, compressed: this file": compressed}).items():
        sizes.append(Size(form, size, 8 * (size - others) / shared, True))
    return sizes


def _in_eight_bits(value: Tensor) -> Tensor:
    scale = value.abs().max() / 127 if value.numel() else torch.tensor(1.0)
    return torch.round(value / scale.clamp_min(torch.finfo(torch.float32).tiny)) * scale


def size_table(sizes: list[Size]) -> str:
    """The sizes in Markdown."""
    rows = [
        [s.form, f"{s.bytes:,}", f"{s.bits:.2f}", f"{sizes[0].bytes / s.bytes:.2f}", "yes" if s.exact else "no"]
        for s in sizes
    ]
    heads = ("the network as", "bytes", "bits per shared number", "times smaller", "the same network")
    return markdown_table(rows, heads)
