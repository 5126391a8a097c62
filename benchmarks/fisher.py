"""Fisher of the MLP 784-1200 (80 batches of 100) against one training epoch of mnist5; its memory; state per parameter.

Targets: less time than the epoch; extra memory ≤ 2 × the parameters plus one batch; state ≤ 17 bytes per parameter.
"""

import tracemalloc
from collections.abc import Callable

import timing
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from blip import BLIP, diagonal_fisher
from blip.networks import MLP, build_network

EPOCH_EXAMPLES = 12_000  # about what one mnist5 task has
PAIRS = 7


class PeakTensorBytes(TorchDispatchMode):
    """The most bytes of tensor memory made inside the block that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[object, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        import weakref

        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        for tensor in _tensors((result,)):
            storage = tensor.untyped_storage()
            key = storage.data_ptr()
            if key not in known and storage.nbytes():
                self.alive[key] = (weakref.ref(storage), storage.nbytes())
        self.alive = {k: v for k, v in self.alive.items() if v[0]() is not None}  # type: ignore[operator]
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def _tensors(values):  # type: ignore[no-untyped-def]
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


if __name__ == "__main__":
    timing.main()
