"""Progress of long work: a bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts epochs, or other units, up to `total`; a task that ends early skips the rest of its own.

    `left` is what the time left is: `at most`, or `about`.
    """

    def __init__(self, title: str, total: int, *, unit: str = "epoch", left: str = "at most") -> None:
        self.title, self.total, self.left = title, total, left
        self.terminal = sys.stderr.isatty()
        self._bar = tqdm(desc=title, total=total, unit=unit, disable=not self.terminal, smoothing=0.1)
        self._start, self._last_line = time.monotonic(), time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, done: int, text: str) -> None:
        """`done` units of the whole run are done; `text` says how it goes."""
        if self.terminal:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        self._first = done - 1 if self._first is None else self._first
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (now - self._start) / (done - self._first)
            left = rate * (self.total - done) / 60
            self.say(f"{text}, {self.left} {left:.0f} min left")

    def say(self, text: str) -> None:
        """A line that stays."""
        tqdm.write(f"{self.title}: {text}", file=sys.stderr)
        sys.stderr.flush()


def counted(items: Iterable[Item], title: str, total: int, unit: str) -> Iterator[Item]:
    """The items, with a bar that counts them on a terminal, and now and then a line elsewhere."""
    with Progress(title, total, unit=unit, left="about") as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress.advance(done, f"{done} of {total} {unit}s")
