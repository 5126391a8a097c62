"""A device that is pretended on a CPU: what only fails on a real one is found by how tensors are made and used.

`Pretended` tells tensors of the host from those of the device by how they came to be. `Watched` looks at one training
step as a recording would: what it would wait for, and which memory from outside of it it reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import blip.seeding

FACTORIES = {
    *(torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones),
    *(torch.rand, torch.randint, torch.randn, torch.randperm, torch.scalar_tensor, torch.tensor, torch.zeros),
}
"""Their tensors are of the host where no device is named."""
COPIES = {Tensor.copy_, Tensor.__setitem__, Tensor.set_}
"""What takes a tensor of the other side, as a copy."""
ASKED = {torch.get_default_device, Tensor.untyped_storage, torch._has_compatible_shallow_copy_type}
"""What only looks at a tensor."""
SHAPES = {Tensor.view_as, Tensor.expand_as, Tensor.reshape_as}
"""What takes nothing but the shape of its second tensor."""
NO_DATA = {Tensor.new_zeros, Tensor.new_empty, Tensor.new_full, Tensor.new_ones, Tensor.new_tensor}


class Pretended(TorchFunctionMode):
    """Within it, `problems` collects calls of tensors of both sides, and of generators of the wrong one.

    Of the device is what a device was named for, or what was computed from such tensors; `tensor.to(device)` copies.
    What runs backward is not looked at. Numbers (tensors of no dimension) of the host may be used on a device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.host: dict[int, Any] = {}
        """Memory of the host by its address; kept, so that no address is used twice."""
        self.generators: dict[int, tuple[torch.Generator, bool]] = {}

    def on_host(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.host

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ASKED:
            return func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        device = kwargs.get("device") or next((a for a in args if isinstance(a, torch.device)), None)
        result = func(*args, **kwargs)
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if func is Tensor.cpu:
            result = result.clone() if result is args[0] else result
            self._keep(result)
        elif func is Tensor.to and device is not None:
            result = result.clone() if self.on_host(args[0]) else result
        elif func in FACTORIES:
            if device is None:
                for tensor in made:
                    self._keep(tensor)
        elif func not in NO_DATA:
            self._check(func, given, made)
        self._check_generator(func, kwargs.get("generator"), made)
        return result

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr():
            self.host[storage.data_ptr()] = storage

    def _check(self, func: Any, given: list[Tensor], made: list[Tensor]) -> None:
        given = given[:1] if func in SHAPES else given
        sides = {self.on_host(t) for t in given if t.dim() and t.numel()}
        if len(sides) == 2 and func not in COPIES:
            self.problems.append(f"{getattr(func, '__name__', func)}: {[tuple(t.shape) for t in given]} of both sides")
        if sides == {True} and func not in COPIES:
            for tensor in made:
                self._keep(tensor)

    def _check_generator(self, func: Any, generator: Any, made: list[Tensor]) -> None:
        if generator is None or id(generator) not in self.generators:
            return
        if any(self.on_host(t) != self.generators[id(generator)][1] for t in made if t.numel()):
            self.problems.append(f"{getattr(func, '__name__', func)}: a generator of the other side")

    def from_numpy(self, array: Any) -> Tensor:
        """Which no mode is told of."""
        tensor = _from_numpy(array)
        self._keep(tensor)
        return tensor

    def make_generator(self, device: Any = "cpu") -> torch.Generator:
        """The project names the host by the word, and a device by a tensor's."""
        generator = torch.Generator("cpu")
        self.generators[id(generator)] = generator, not isinstance(device, torch.device)
        return generator


_from_numpy = torch.from_numpy


@contextmanager
def pretended_device() -> Iterator[list[str]]:
    """The problems that come up within the block."""
    mode = Pretended()
    made = SimpleNamespace(Generator=mode.make_generator)
    with patch.object(blip.seeding, "torch", made), patch.object(torch, "from_numpy", mode.from_numpy), mode:
        yield mode.problems


class Watched(TorchDispatchMode):
    """Operators of a step, backward pass and all."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "bincount", "is_nonzero", "allclose")
    """What needs a number, or a shape, that only the device knows."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.constants: list[str] = []
        """Tensors that are made of Python's numbers: on a device a copy from pageable memory."""
        self.read: dict[int, Any] = {}
        """Memory from outside that is read, by its address."""
        self.own: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        by_mask = name in ("index", "index_put", "index_put_") and any(t.dtype == torch.bool for t in given)
        if by_mask or name.removesuffix("2").removeprefix("_") in {w.removeprefix("_") for w in self.WAITS}:
            self.waits.append(name)
        if name == "lift_fresh":
            self.constants.append(name)
        for tensor in given:
            storage = tensor.untyped_storage()
            if storage.data_ptr() and storage.data_ptr() not in self.own:
                self.read[storage.data_ptr()] = storage
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.read:
                self.own[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return result
