"""Devices: which one a run is on, what they are, how precise their products are, and how memory gets there."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from blip.errors import BlipError

CPUINFO = Path("/proc/cpuinfo")


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. A CUDA device comes with its index, current and deterministic.

    Raises BlipError where the named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, ImportError) as error:
        raise BlipError(f"--device {name}: not available: {str(error).splitlines()[0].partition('. ')[0]}") from None
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True  # or a resumed run would not end with the same bytes
    return device


@contextmanager
def tensor_float_32(device: torch.device, allowed: bool) -> Iterator[None]:
    """Whether a GPU may compute products and convolutions in TF32 within the block; PyTorch lets it convolve so."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def processor() -> dict[str, str]:
    """What Linux says of the first processor; empty where it is silent."""
    try:
        entry = CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in entry.splitlines())}


def processor_name() -> str:
    """What the processor is called, or what kind it is."""
    return processor().get("model name") or platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where its allocator is glibc's.

    Otherwise gradients and the like go back to the system in each step and come back page by page, all zeroed: up to a
    third of a step of the MLP. Arrays of more than 32 MiB, glibc's limit for this, still do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the CPU, on `device`; a GPU copies it in its turn, from pinned memory, and is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def host_memory(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the host, pinned where a GPU copies from and to it."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def download(tensor: Tensor, into: Tensor) -> None:
    """Copy `tensor` into memory of the host, and wait until it is there."""
    into.copy_(tensor, non_blocking=True)
    if tensor.device.type == "cuda":
        torch.cuda.current_stream(tensor.device).synchronize()
