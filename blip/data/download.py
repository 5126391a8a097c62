"""Raw files that are fetched by torchvision, which also reads some of them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

from blip.errors import BlipError


@contextmanager
def downloading(raw: Path, what: str, by_hand: str) -> Iterator[None]:
    """Around what fetches files into `raw`. Raises BlipError that says what to do `by_hand` where it cannot.

    Of a `raw` that was not there, nothing is left then, since its name may be a mistake.
    """
    missing = [folder for folder in (raw, *raw.parents) if not folder.exists()]
    try:
        yield
    except (OSError, HTTPException, RuntimeError, ImportError) as error:
        if missing:
            _remove_empty([*sorted(raw.rglob("*"), reverse=True), *missing])
        raise BlipError(
            f"{raw}: {what} is not there or is damaged, and cannot be downloaded ({shorten(str(error), 90)}); {by_hand}"
        ) from None


def _remove_empty(folders: list[Path]) -> None:
    """In their order, as far as they are empty folders."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def torchvision_set(raw: Path, kind: str, by_hand: str, **arguments: Any) -> Any:
    """torchvision's data set `kind` in `raw`, its files checked, or fetched where they are missing or damaged."""
    with downloading(raw, kind, by_hand):
        datasets = import_module("torchvision.datasets")  # here, since it takes seconds
        return getattr(datasets, kind)(root=raw, download=True, **arguments)
