"""A stand-in for CUDA graphs on a CPU: what was recorded is called anew at every replay, on the recorded indices.

So it sees what the loop does wrong, but not a method that makes tensors anew or looks at them: `pretended_device` does.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from blip.training.graphs import GraphedStep, side_stream


class FakeGraph:
    """Replays the step that was called while it was recorded."""

    recording: "FakeGraph | None" = None
    made: "list[FakeGraph]"
    """All that were recorded since the stand-in was installed."""

    def __init__(self) -> None:
        self.step = lambda: None
        self.replays = 0
        FakeGraph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        self.step()


class FakeStream:
    def __init__(self, *_: Any) -> None:
        self.waited: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited.append(other)


@contextmanager
def record(graph: FakeGraph, stream: FakeStream) -> Iterator[None]:
    FakeGraph.recording = graph
    try:
        yield
    finally:
        FakeGraph.recording = None


def recordable(step: Any, index: Tensor) -> None:
    """A step as a graph sees it: while recorded it does not run, but every replay runs it on the recorded memory."""
    if FakeGraph.recording:
        FakeGraph.recording.step = partial(step, index)
    else:
        step(index)


@contextmanager
def stand_in_cuda() -> Iterator[list[FakeGraph]]:
    """Make `GraphedStep` work on a CPU; gives the list of recordings."""
    FakeGraph.made = []
    init = GraphedStep.__init__

    def init_recordable(self: GraphedStep, step: Any, *arguments: Any) -> None:
        init(self, partial(recordable, step), *arguments)

    with ExitStack() as stack:
        for name, value in {
            "CUDAGraph": FakeGraph,
            "graph": record,
            "Stream": FakeStream,
            "stream": lambda _: nullcontext(),
            "current_stream": FakeStream,
        }.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(GraphedStep, "__init__", init_recordable))
        side_stream.cache_clear()
        stack.callback(side_stream.cache_clear)
        yield FakeGraph.made
