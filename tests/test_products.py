"""Which library computes float32 products, and what it is refused for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blip import devices
from blip.config import load_experiment
from blip.networks import MLPConfig, ResNet18Config, largest_product
from blip.runs.train import Training, train_run
from blip.training import products
from blip.training.checkpoint import Checkpoint
from blip.training.products import DEFAULT, ONEDNN, choose, computed_by

CPU = torch.device("cpu")
LARGE = 2**30
can_be_set = pytest.mark.skipif(not products._can_be_set(), reason="a PyTorch before 2.9, or without oneDNN")


class Setting:
    """Stands in for PyTorch's."""

    fp32_precision = "none"


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A PyTorch whose oneDNN would be taken."""
    stand_in = Setting()
    monkeypatch.setattr(products, "_setting", lambda: stand_in)
    monkeypatch.setattr(products, "_can_be_set", lambda: True)
    monkeypatch.setattr(products, "_is_faster_here", lambda: True)
    yield stand_in
    assert stand_in.fp32_precision == "none", "left as it was"


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """With so many bits of the mantissa, as TF32 (10) and bfloat16 (7) hold them."""
    return (x.view(torch.int32) + (1 << (22 - bits)) & -(1 << (23 - bits))).view(torch.float32)


@pytest.mark.parametrize(("bits", "expected"), [(7, DEFAULT), (10, DEFAULT), (15, DEFAULT), (23, ONEDNN)])
@pytest.mark.parametrize("asked", ["auto", "onednn"])
def test_products_of_less_than_float32_are_refused(
    bits: int, expected: str, asked: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = torch.Tensor.__matmul__

    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        reduced = x.dtype == torch.float32 and setting.fp32_precision == "bf16" and bits < 23
        return exact(rounded(x, bits), rounded(y, bits)) if reduced else exact(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    assert choose(asked, CPU, LARGE) == expected


def test_where_it_is_not_known_to_be_faster(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("default", CPU, LARGE) == DEFAULT
    assert choose("auto", CPU, 16 * 64 * 50) == DEFAULT, "the products of pdigits: a call costs more than it saves"
    assert choose("auto", torch.device("cuda"), LARGE) == DEFAULT
    monkeypatch.setattr(products, "_is_faster_here", lambda: False)
    assert choose("auto", CPU, LARGE) == DEFAULT
    assert choose("onednn", CPU, 1) == ONEDNN
    monkeypatch.setattr(products, "_can_be_set", lambda: False)
    assert choose("onednn", CPU, LARGE) == DEFAULT


CPUINFO = (
    "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel name\t: a CPU\nflags\t\t: fpu {}\n\nprocessor\t: 1\n"
)
WIDE = "avx512f avx512dq avx512bw avx512vl"


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (CPUINFO.format("AuthenticAMD", 26, WIDE), True),
        (CPUINFO.format("AuthenticAMD", 25, WIDE), False),
        (CPUINFO.format("AuthenticAMD", 26, "avx2"), False),
        (CPUINFO.format("GenuineIntel", 26, f"{WIDE} amx_bf16 amx_tile"), False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n", False),  # 64-bit ARM
        ("", False),
    ],
)
def test_processors(about: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    assert not products._is_faster_here(), "no such file, as on macOS"
    devices.CPUINFO.write_text(about)
    assert products._is_faster_here() == expected


def test_largest_product_is_of_linear_layers() -> None:
    assert largest_product(MLPConfig(name="mlp", hidden=[5, 9]), (1, 4, 4), 10) == 10 * 16 * 5
    assert largest_product(ResNet18Config(name="resnet18"), (3, 32, 32), 10) == 0


@can_be_set
def test_products_are_float32s_and_the_setting_ends_with_the_block() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    library = choose("onednn", CPU, 1)
    x, weight = torch.randn(64, 784), torch.randn(300, 784)
    plain = x @ weight.T
    with computed_by(library):
        assert products._error(x, weight.T) < products.LARGEST_ERROR
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.equal(x @ weight.T, plain)


@can_be_set
def test_a_run_says_which_and_is_not_resumed_with_another(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(tiny, {"training.epochs": 1})
    folders: list[Path] = []
    monkeypatch.setattr(Checkpoint, "remove", lambda self: folders.append(self.folder))
    for asked in ("auto", "default"):
        how = Training(tmp_path / "raw", tmp_path / "prepared", tmp_path / "checkpoints", "cpu", products=asked)
        with monkeypatch.context() as patch:
            patch.setattr(products, "SMALLEST_PRODUCT", 1)
            patch.setattr(products, "_is_faster_here", lambda: True)
            patch.setattr(products, "_is_exact", lambda: True)
            run = train_run(experiment, "sgd", 0, tmp_path / asked, how)
        expected = ONEDNN if asked == "auto" else DEFAULT
        assert json.loads((run / "run.json").read_text())["provenance"]["products"] == expected
    assert len({folder.name for folder in folders}) == 2
