"""What several test files need."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from shell import Shell

ROOT = Path(__file__).parents[1]
NEEDED = {
    "test_docs.py": ("snakemake", "zensical", "jsonschema"),
    "test_found_and_cited.py": ("check_jsonschema",),
    "test_schemas.py": ("jsonschema",),
}
"""Packages of developers that some files import; where they are missing, such as in a bundle, these are left out."""
collect_ignore = [file for file, packages in NEEDED.items() if not all(map(find_spec, packages))]

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
settings.register_profile("shared machine", deadline=None)  # no test asserts a wall-clock time
settings.load_profile("shared machine")

TINY = """\
name: tiny
data:
  sources: [{name: digits, classes_per_task: 5}]
network: {name: mlp, hidden: [8]}
training: {lr: 0.1, batch_size: 32, epochs: 3}
methods:
  blip: {f_prior: 1e-13, fisher_batch_size: 10, fisher_batches: 20}
  sgd: {}
  sgd-frozen: {}
  ewc: {fisher_batch_size: 32}
  lwf: {}
  imm-mode: {fisher_batch_size: 32}
  single-task: {}
  joint: {}
  si: {}
  mas: {}
  gpm: {}
  packnet: {retrain_epochs: 1}
  hat: {s_max: 50, strength: 0.05}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An experiment file whose runs take a second: two tasks of five digits, three epochs."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def shell(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, tiny, capsys)
