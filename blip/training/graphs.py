"""CUDA graphs: a training step recorded once and replayed, since at batch 32 launching its kernels is what takes time.

A replay runs the very kernels of the recorded step on the same memory, so weights, loss and random numbers are those
of eager training. What a graph cannot see, it keeps as it was when recorded: a new task, or new tensors in place of old
ones need a new recording. See "CUDA graphs" in the notes of PyTorch's documentation.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

WARM_UP = 3
"""Steps run eagerly before the recording: meanwhile libraries set up what they keep for the stream, and optimizers make
their state."""


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device on which steps are warmed up and recorded, which the default stream does not allow.

    One for all of them: memory that was freed on a stream is only used again there, and cuBLAS keeps a workspace (32
    MiB on some GPUs) for each that it has seen, so a stream for every task and learning rate would pile them up.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class GraphedStep:
    """`step(index)` for batches of one size: eagerly at first, then recorded, then replayed.

    `step` takes the indices (batch_size,) of the batch's examples, reads and writes tensors on `index.device` only in
    place, and never waits for the device. Batches of other sizes are run eagerly.
    """

    def __init__(self, step: Callable[[Tensor], None], batch_size: int, device: torch.device) -> None:
        self.step = step
        self.index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm_up = WARM_UP
        self.side_stream = side_stream(device)

    def __call__(self, index: Tensor) -> None:
        """Run one step."""
        if len(index) != len(self.index):
            self.step(index)
            return
        if self.warm_up:
            self.warm_up -= 1
            self.side_stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side_stream):
                self.step(index)
            torch.cuda.current_stream().wait_stream(self.side_stream)
            return
        self.index.copy_(index)
        if self.graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.side_stream):
                self.step(self.index)  # recorded, not run
            self.graph = graph
        self.graph.replay()
