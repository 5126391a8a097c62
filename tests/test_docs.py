"""What the documentation shows is what works."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY
from PIL import Image

from blip.cli import main
from blip.methods import METHODS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "config" / "README.md"]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=lambda p: p.name)
def test_python_in_the_pages_runs(page: Path) -> None:
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), {})


def test_a_method_of_ones_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ROOT / "docs" / "examples" / "imm_mean.py"
    assert len(source.read_text().splitlines()) <= 60
    monkeypatch.setattr("blip.methods.base.METHODS", METHODS)
    spec = importlib.util.spec_from_file_location("blip.methods.imm_mean", source)
    assert spec
    assert spec.loader
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        config = tmp_path / "tiny.yaml"
        config.write_text(TINY + "  imm-mean: {strength: 0.5}\n")
        folders = ["--data", tmp_path / "data", "--out", tmp_path / "runs", "--checkpoints", tmp_path / "c"]
        assert main(["train", str(config), "--method", "imm-mean", *map(str, folders)]) == 0
    finally:
        METHODS.pop("imm-mean", None)
    assert (tmp_path / "runs" / "tiny" / "imm-mean" / "seed0" / "accuracy.csv").exists()


def test_a_data_set_of_ones_own_is_a_config_entry(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("aster", "bellis", "cirsium", "dahlia")):
            folder = tmp_path / "flowers" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., label % 3] += 60 * (1 + label // 3)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    folders = ["--raw", tmp_path, "--data", tmp_path / "d", "--out", tmp_path / "runs", "--checkpoints", tmp_path / "c"]
    config = ROOT / "docs" / "examples" / "images.yaml"
    assert main(["train", str(config), "--method", "blip", *map(str, folders)]) == 0
    lines = (tmp_path / "runs" / "flowers" / "blip" / "seed0" / "accuracy.csv").read_text().splitlines()
    assert len(lines) == 1 + 3, "two tasks: the first tested twice, the second once"


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists()], ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
