"""Picking a device, with a stand-in for CUDA: what the real one refuses is refused."""

import platform
import resource
from typing import Any

import pytest
import torch

from blip.devices import keep_freed_memory, pick_device, upload
from blip.errors import BlipError


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two devices, the second one current; which ones were made current meanwhile."""
    chosen: list[int] = []
    make = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    # As the real one, it takes no device without an index.
    set_device = torch.cuda._utils._get_device_index
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(set_device(device)))
    monkeypatch.setattr(torch, "empty", lambda *size, device: make(*size))
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    return chosen


@pytest.mark.parametrize(("name", "index"), [("auto", 1), ("cuda", 1), ("cuda:0", 0)])
def test_a_cuda_device_is_picked_with_its_index_and_made_deterministic(name: str, index: int, cuda: list[int]) -> None:
    assert pick_device(name) == torch.device("cuda", index)
    assert cuda == [index]
    assert torch.backends.cudnn.deterministic


@pytest.mark.parametrize("name", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(BlipError) as error:
        pick_device(name)
    assert str(error.value).startswith(f"--device {name}: not available: ")
    assert "\n" not in str(error.value)


def test_a_gpu_copies_from_pinned_memory_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def to(tensor: torch.Tensor, device: torch.device, **how: Any) -> torch.Tensor:
        asked.update(how, device=device)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.update(pinned=True) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    order = torch.arange(3)
    assert upload(order, torch.device("cpu")) is order
    assert "pinned" not in asked
    upload(order, torch.device("cuda"))
    assert asked == {"pinned": True, "non_blocking": True, "device": torch.device("cuda")}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc's allocator")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    def pages_asked_for() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            arrays = [torch.zeros(2**20) for _ in range(6)]  # 4 MiB each
            del arrays
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    pages_asked_for()  # once they are had
    assert pages_asked_for() < 6 * 2**10, "as many as one round of them has"
