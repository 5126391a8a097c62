"""The check of a GPU, tried on a CPU with everything tiny; and unpacking a bundle."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from importlib import import_module
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
    assert str(ROOT) not in (tmp_path / "report.json").read_text()
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


STEP = """\
#!{python}
import json, os, sys, time
open({pid!r}, "w").write(str(os.getpid()))
for i in range({rows}):
    with open(os.environ["BLIP_GPU_CHECK_ROWS"], "a") as file:
        file.write(json.dumps({{"what": f"row {{i}}", "value": i, "unit": "s"}}) + "\\n")
print("x" * 100_000)
sys.stdout.flush()
time.sleep({sleep})
"""


def start_check(folder: Path, *options: str, rows: int, sleep: float) -> "subprocess.Popen[bytes]":
    """The check, each of whose steps gives rows and then sleeps; its report goes to folder/report."""
    step = folder / "step"
    step.write_text(STEP.format(python=sys.executable, rows=rows, sleep=sleep, pid=str(folder / "pid")))
    step.chmod(0o755)
    code = f"""
import runpy, sys
sys.path.insert(0, "benchmarks/gpu_check")
sys.argv = {["gpu_check", str(folder / "report"), "--device", "cpu", *options]!r}
sys.executable = {str(step)!r}
runpy.run_path("benchmarks/gpu_check/__main__.py", run_name="__main__")
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_check_that_is_cut_off_leaves_a_whole_report(tmp_path: Path) -> None:
    """Killed while its first step is still running: the rows that it had given are there."""
    process = start_check(tmp_path, rows=3, sleep=600)
    report = tmp_path / "report" / "report.md"  # the last to be written
    end = time.monotonic() + 60
    while not (report.exists() and "row 2" in report.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.kill()
    process.wait()
    found = steps(tmp_path / "report")
    assert [row["value"] for row in found["machine"]["rows"]] == [0, 1, 2]
    assert found["machine"]["state"] == "running"
    assert {step["state"] for name, step in found.items() if name != "machine"} == {"waiting"}
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # the step, which nothing ends any more


def test_its_minutes_are_kept_and_its_files_are_few_and_small(tmp_path: Path) -> None:
    """A step that does not end is ended, those for which no time is left are left out, and long output is cut."""
    began = time.monotonic()
    process = start_check(tmp_path, "--minutes", "0.15", rows=500, sleep=600)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert time.monotonic() - began < 60
    found = steps(tmp_path / "report")
    assert found["machine"]["state"] == "ended after 9 s"
    assert len(found["machine"]["rows"]) == 500
    assert {found[name]["state"] for name in ("tests", "speed", "sharing")} == {"left out"}
    files = list((tmp_path / "report").iterdir())
    assert len(files) <= 8
    assert all(path.stat().st_size < 16e6 / 100 for path in files), "of the 16 MB that are allowed"


def test_the_most_important_comes_first_and_eight_minutes_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/gpu_check"))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "folder"])
    values = runpy.run_path(str(ROOT / "benchmarks/gpu_check/__main__.py"))
    assert list(values["STEPS"]) == ["machine", "tests", "speed", "games", "runs", "waits", "fisher", "sharing"]
    assert values["_options"]().minutes == 8
    assert sum(step.seconds for step in values["STEPS"].values()) < 1.2 * 480, "of which none needs all"


def test_tests_that_say_most_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/gpu_check"))
    place = import_module("checks").place
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", "tests/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    ordered = sorted(names, key=place)
    assert len(names) > 150
    assert "consolidation" in " ".join(ordered[:5])
    images = [n for n in ordered if "graphs_and_eager_training" in n and "float32" in n]
    games = [n for n in ordered if "updates_of_games" in n and "float32" in n]
    last = [n for n in ordered if "bfloat16" in n or "tf32" in n]
    assert max(map(ordered.index, images)) < min(map(ordered.index, games))
    assert max(map(ordered.index, games)) < min(map(ordered.index, last))
    assert ordered[-len(last) :] == last


@pytest.mark.slow
def test_what_is_tested_on_a_gpu_passes_with_a_stand_in() -> None:
    """Every test marked gpu that does not ask for a device's memory."""
    pytest.importorskip("stable_baselines3")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests/test_gpu.py"]
    environment = {**os.environ, "BLIP_GPU_STAND_IN": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 skipped" in done.stdout


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


def unpack(bundle: Path, site: Path, there: str = "torch>=2.6\n") -> "subprocess.CompletedProcess[str]":
    (bundle / "there.txt").write_text(there)
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


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("torch>=2.6\nno-such-package>=1.0\n", "has no no-such-package: name a Python that has"),
        ("torch>=2.6\nnumpy>=99.1\n", f"is too old in {sys.executable}: expected at least 99.1"),
    ],
)
def test_a_python_without_what_a_bundle_leaves_out_is_one_line(there: str, message: str, tmp_path: Path) -> None:
    wheel(tmp_path / "bundle", "py3-none-any")
    done = unpack(tmp_path / "bundle", tmp_path / "site", there)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "site").exists()
