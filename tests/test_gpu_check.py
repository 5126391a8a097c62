"""The check of a GPU, tried on a CPU with everything tiny; and unpacking a bundle."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT


def check(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "benchmarks/gpu_check", folder, *options]
    return subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)


def steps(folder: Path) -> dict[str, dict]:
    return {step["name"]: step for step in json.loads((folder / "report.json").read_text())["steps"]}


def test_without_a_gpu_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = check(tmp_path / "report")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: no CUDA device")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_a_report_is_two_files(tmp_path: Path) -> None:
    done = check(tmp_path, "--device", "cpu", "--quick", "--only", "machine")
    assert done.returncode == 0, done.stderr
    found = steps(tmp_path)
    assert found["machine"]["state"] == "done"
    assert any(row["what"] == "PyTorch" for row in found["machine"]["rows"])
    assert found["hours"]["rows"][-1]["value"] == 0
    assert "## machine: what is there" in (tmp_path / "report.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}


def test_a_step_that_fails_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    """By a Python for the steps that ends at once."""
    code = f"""
import runpy, sys
sys.path.insert(0, "benchmarks/gpu_check")
sys.argv = ["gpu_check", {str(tmp_path)!r}, "--device", "cpu", "--only", "machine", "waits"]
sys.executable = "/bin/false"
runpy.run_path("benchmarks/gpu_check/__main__.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = steps(tmp_path)
    assert [found[name]["state"] for name in ("machine", "waits", "hours")] == ["failed with status 1"] * 2 + ["done"]
    assert "* waits: failed with status 1" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_every_step_runs(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    done = check(tmp_path, "--device", "cpu", "--quick", "--minutes", "40")
    assert done.returncode == 0, done.stdout
    found = steps(tmp_path)
    assert all(step["state"] == "done" and step["rows"] for step in found.values())
    assert not [row for row in found["tests"]["rows"] if row["value"] == "failed"]
    left_out = [row for step in found.values() for row in step["rows"] if "left out" in row["what"]]
    assert not left_out


# The bundle

SETUP = ROOT / "envs" / "bundle" / "setup.py"


def unpack(bundle: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    (bundle / "setup.py").write_bytes(SETUP.read_bytes())
    return subprocess.run([sys.executable, bundle / "setup.py", site], capture_output=True, text=True, check=False)


def wheel(bundle: Path, tag: str) -> None:
    (bundle / "wheels").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(bundle / "wheels" / f"something-1.0-{tag}.whl", "w") as archive:
        archive.writestr("something.py", "VALUE = 1\n")


def test_a_bundle_is_unpacked_beside_this_python(tmp_path: Path) -> None:
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheel(tmp_path / "bundle", f"{version}-{version}-manylinux_2_17_x86_64.manylinux2014_x86_64")
    wheel(tmp_path / "bundle", "py3-none-any")
    for _ in range(2):  # the second time it is there
        done = unpack(tmp_path / "bundle", tmp_path / "site")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "site" / "something.py").read_text() == "VALUE = 1\n"


def test_a_bundle_for_another_python_is_one_line(tmp_path: Path) -> None:
    wheel(tmp_path / "bundle", "cp39-cp39-manylinux_2_17_x86_64")
    wheel(tmp_path / "bundle", "cp36-abi3-manylinux_2_17_x86_64")
    done = unpack(tmp_path / "bundle", tmp_path / "site")
    assert done.returncode == 2
    assert done.stderr.startswith("bundle: this bundle is for Python 3.9, found 3.")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "site").exists()
