"""Pickles of plain data, read without running anything that is in them."""

import pickle
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def load_plain(file: IO[bytes]) -> Any:
    """What a pickle of arrays of numbers, lists, tuples, dicts, numbers, strings and bytes holds.

    Raises pickle.UnpicklingError where it names anything else, before that is imported; nothing in the file is called.
    """
    try:
        return _PlainUnpickler(file, encoding="latin1").load()  # latin1: for arrays pickled by Python 2
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # damaged bytes surface as many kinds of exceptions
        raise pickle.UnpicklingError(f"damaged ({type(error).__name__}: {error})") from None


def dump_images(images: Iterable[NDArray[np.uint8]], labels: list[int], file: IO[bytes]) -> None:
    """Pickle {"images": list of arrays, "labels": list of int}, image by image: memory for a few of them is enough.

    The arrays are named by constructors that every version of NumPy has (its own pickles name internal modules), so
    that old loaders read the file, and that equal images give equal bytes.
    """
    pickler = _ImagePickler(file, protocol=4)
    pickler.fast = True  # no memo, which would keep every image
    pickler.dump({"images": _Stream(images), "labels": labels})


class _Stream:
    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items


class _ImagePickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Stream):
            return list, (), None, iter(obj.items)
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.name, bytearray(obj.tobytes()))
        return NotImplemented


class _Type:
    """A type of numbers. NumPy's own takes any state from a pickle, that of Python objects too."""

    def __init__(self, name: str, *_: Any) -> None:
        self.plain = np.dtype(str(name))
        if self.plain.kind not in "biufSU":
            kind = "Python objects" if self.plain.hasobject else f"the type {self.plain}"
            raise pickle.UnpicklingError(f"an array of {kind}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *_ = state
        self.plain = self.plain.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array that is filled from a pickle's state."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        super().__setstate__((1, shape, dtype.plain, fortran, content))


class _Constructor:
    """Called for a name in a pickle, which may set attributes of what it names: a function would take them."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets attributes of what plain data are made with")


def _array(shape: tuple[int, ...], dtype: str, buffer: bytearray) -> NDArray[Any]:
    return np.ndarray(shape, _Type(dtype).plain, buffer)


def _empty_array(*_: Any) -> NDArray[Any]:
    return _Array((0,), "b")


def _scalar(dtype: _Type, content: bytes) -> Any:
    return np.frombuffer(content, dtype.plain, count=1)[0]


def _from_buffer(buffer: bytes, dtype: _Type, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    flat = np.frombuffer(buffer, dtype.plain)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"a text in the encoding {encoding}")
    return text.encode("latin1")


_INTERNAL = ("numpy.core", "numpy._core")
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "list"): list,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "bytearray"): bytearray,
    ("_codecs", "encode"): _Constructor(_latin1),
    ("numpy", "ndarray"): _Constructor(_array),
    ("numpy", "dtype"): _Constructor(_Type),
    **{(f"{core}.multiarray", "_reconstruct"): _Constructor(_empty_array) for core in _INTERNAL},
    **{(f"{core}.multiarray", "scalar"): _Constructor(_scalar) for core in _INTERNAL},
    **{(f"{core}.numeric", "_frombuffer"): _Constructor(_from_buffer) for core in _INTERNAL},
}
"""What a pickle may name, and what is called instead of it."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which plain data do not need") from None
