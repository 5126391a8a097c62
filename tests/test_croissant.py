"""A data set's description in Croissant: what it says of its file, and that Croissant's own library takes it."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from blip.cli import main
from blip.data.croissant import write_croissant
from blip.data.sources import read_digits
from blip.data.storage import croissant_path
from blip.errors import BlipError

EXPERIMENT = str(ROOT / "config/experiments/digits5.yaml")
READ = """\
import json, sys
import mlcroissant
dataset = mlcroissant.Dataset(sys.argv[1])
issues = dataset.metadata.issues
print(json.dumps([sorted(issues.errors), len(issues.warnings), list(dataset.records("classes"))], default=bytes.decode))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    assert main(["data", EXPERIMENT, "--data", str(folder), "--croissant"]) == 0
    return folder / "digits.croissant.json"


def test_the_description_is_of_the_file_beside_it(described: Path) -> None:
    about = json.loads(described.read_text())
    (file,) = about["distribution"]
    content = (described.parent / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["contentSize"] == f"{len(content)} B"
    digits = read_digits(Path())
    assert f"train_images uint8 ({len(digits.train_images)} × 1 × 8 × 8)" in about["description"]
    assert [row["classes/name"] for row in about["recordSet"][0]["data"]] == list("0123456789")
    assert str(described.parent) not in described.read_text()


def test_the_same_file_gives_the_same_bytes(described: Path) -> None:
    before = described.read_bytes()
    write_croissant(described.parent / "digits.safetensors")
    assert described.read_bytes() == before


def test_without_asking_there_is_none(tmp_path: Path) -> None:
    assert main(["data", EXPERIMENT, "--data", str(tmp_path), "--source", "digits"]) == 0
    assert not croissant_path(tmp_path / "digits.safetensors").exists()
    with pytest.raises(BlipError, match="missing: prepare the data first"):
        write_croissant(tmp_path / "mnist.safetensors")


@pytest.mark.crate
def test_croissants_own_library_takes_it(described: Path) -> None:
    python = ROOT / "build/validator/bin/python"
    run = subprocess.run([python, "-c", READ, described], check=True, capture_output=True, text=True)
    errors, warnings, records = json.loads(run.stdout)
    assert errors == []
    assert warnings <= 4, "licence, version, date and citation, which the file does not name"
    assert records == [{"classes/label": i, "classes/name": str(i)} for i in range(10)]
