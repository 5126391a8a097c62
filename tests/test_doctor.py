"""`blip doctor`: one screen, with a GPU and without."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from blip import devices, doctor
from blip.cli import main
from blip.training import products


def test_a_machine_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert torch.__version__ in screen
    assert "GPU" in screen
    assert "none: training runs on the CPU" in screen
    assert len(screen.splitlines()) < 24
    assert all(len(line) < 120 for line in screen.splitlines())


def test_a_machine_with_two_gpus(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="A card", major=9, minor=0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3 * 2**30, 4 * 2**30))
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert "13.0, cuDNN 91900, driver" in screen
    assert "GPU 1" in screen
    assert "A card, 3.0 of 4.0 GiB free, compute capability 9.0" in screen
    assert "recorded as CUDA graphs" in screen


def test_a_long_path_is_no_obstacle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / ("a" * 200)
    assert main(["doctor", "--raw", str(raw)]) == 0
    assert f"raw data in {raw}" in capsys.readouterr().out


def test_data_that_are_missing_are_told_with_the_experiments_that_wait_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        (tmp_path / "cifar100" / part / "apple").mkdir(parents=True)
    assert main(["doctor", "--raw", str(tmp_path)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows[f"raw data in {tmp_path}"] == "cifar100, digits"
    assert "digits5" in rows["experiments that can run"].split(", ")
    assert "cifar100" in rows["experiments that can run"].split(", ")
    assert "mnist5 (mnist)" in rows["experiments that wait for"].split("; ")
    assert "cifar (cifar10)" in rows["experiments that wait for"].split("; ")
    assert "miniimagenet_resnet (miniimagenet)" in rows["experiments that wait for"].split("; ")


def test_packages_containers_and_slurm_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in (("apptainer", ""), ("sbatch", "slurm 25.05.1")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "not installed" if name == "ale-py" else version(name))
    assert main(["doctor"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["containers"].startswith("apptainer")
    assert rows["SLURM"] == "slurm 25.05.1"
    assert "atari6 (ale-py)" in rows["experiments that wait for"].split("; ")


@pytest.mark.parametrize(("answer", "told"), [("echo 29.1", "docker"), ("exit 1", "docker (no daemon answers)")])
def test_docker_without_its_daemon_runs_nothing(
    answer: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._containers() == told


def test_the_cpu_and_its_products_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "vendor_id: AuthenticAMD\ncpu family: 26\nmodel name: A CPU\nflags: avx2 avx512bw avx512vl avx512dq avx512f\n"
    )
    monkeypatch.setattr(devices, "CPUINFO", info)
    assert main(["doctor"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["CPU"].startswith("A CPU: ")
    assert rows["CPU"].endswith("; avx2, avx512f")
    assert ("oneDNN" in rows["float32 products"]) == (products._can_be_set() and products._is_exact())


def rows_of(screen: str) -> dict[str, str]:
    """Of the screen, by name; lines that go on are joined."""
    rows: dict[str, str] = {}
    for line in screen.splitlines():
        name, _, value = line.partition("  ")
        if line.startswith(" "):
            rows[list(rows)[-1]] += f" {line.strip()}"
        else:
            rows[name] = value.strip()
    return rows
