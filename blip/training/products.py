"""Float32 matrix products on the CPU, by PyTorch's default library or, where that is faster, by oneDNN.

x86 builds of PyTorch take products from MKL, which leaves the AVX-512 units of AMD's processors idle. Another library
in the same PyTorch, oneDNN, uses them: on Zen 5 it takes half of the time. The setting that hands it float32 products
also *allows* it to compute in bfloat16; it only does so on processors with AMX. So products are compared with float64
before it is kept: what is not of float32's quality is never used.

Other products are other roundings. Which library is used depends on nothing but the processor, the PyTorch, and the
size of the network, never on a measurement, so that the same run has the same bytes on the same machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from blip.devices import processor

DEFAULT, ONEDNN, AUTO = "default", "onednn", "auto"

SMALLEST_PRODUCT = 2**21
"""Multiplications from which on oneDNN's calls, about 10 µs dearer than MKL's, pay: 128 × 128 × 128 takes 0.73 of the
time, 16 × 256 × 256 takes 0.95, 16 × 64 × 50 takes 4 times as long."""
LARGEST_ERROR = 2.0**-20
"""Of a product x·y against |x|·|y|; float32 stays below 2⁻²¹ here, TF32 reaches 2⁻¹², bfloat16 2⁻⁹."""


def choose(asked: str, device: torch.device, largest_product: int) -> str:
    """`DEFAULT` or `ONEDNN` for a run whose training steps have no larger product (in multiplications) than this.

    `auto` takes oneDNN where it is known to be faster: large enough products on the CPU, an AMD processor with AVX-512
    units of full width, a PyTorch that can be told. `onednn` takes it on any CPU. Neither does where it would not
    compute in float32.
    """
    if asked == DEFAULT or device.type != "cpu":
        return DEFAULT
    if asked == AUTO and not (largest_product >= SMALLEST_PRODUCT and _is_faster_here()):
        return DEFAULT
    return ONEDNN if _can_be_set() and _is_exact() else DEFAULT


@contextmanager
def computed_by(library: str) -> Iterator[None]:
    """Let float32 products on the CPU be computed by `DEFAULT` or `ONEDNN` within the block."""
    if library == DEFAULT and not (_can_be_set() and _setting().fp32_precision == "bf16"):
        yield  # PyTorch dislikes its setting to be touched where there is no need
        return
    setting = _setting()
    before = setting.fp32_precision
    setting.fp32_precision = "bf16" if library == ONEDNN else "ieee"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _setting() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # from PyTorch 2.9 on


def _can_be_set() -> bool:
    return bool(torch._C._has_mkldnn) and hasattr(torch.backends.mkldnn, "matmul")


def _is_faster_here() -> bool:
    """Whether this is an AMD processor with AVX-512 in full width: Zen 5 (family 26), or later.

    Zen 4 computes it in two halves, and Intel's processors are used in full by MKL: nothing is known to be gained.
    """
    about = processor()
    return (
        about.get("vendor_id") == "AuthenticAMD"
        and int(about.get("cpu family", 0)) >= 26
        and {"avx512bw", "avx512vl", "avx512dq"} <= set(about.get("flags", "").split())
    )


def _is_exact() -> bool:
    """Whether oneDNN's products, in the three forms that training has, are of float32's quality."""
    random = torch.Generator().manual_seed(0)
    x, weight, gradient = (torch.randn(shape, generator=random) for shape in ((64, 512), (256, 512), (64, 256)))
    with computed_by(ONEDNN):
        return all(_error(*pair) <= LARGEST_ERROR for pair in ((x, weight.T), (gradient.T, x), (gradient, weight)))


def _error(x: Tensor, y: Tensor) -> float:
    """Largest error of the product against |x|·|y|."""
    exact_x, exact_y = x.double(), y.double()
    return float(((x @ y - exact_x @ exact_y).abs() / (exact_x.abs() @ exact_y.abs())).max())
