"""GPU slots: concurrent jobs get different GPUs, and a slot is free again when its job is dead."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import blip.runs.gpus
from blip.runs.gpus import claim_slot, lock_folder, visible_devices

ON_GPU = [sys.executable, "-m", "blip.cli", "on-gpu"]


class Machine:
    """Starts `blip on-gpu` with lock files in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
        self.environment["TMPDIR"] = str(folder)

    def start(self, *command: str, devices: str | None, jobs_per_gpu: int = 1, **more: str) -> subprocess.Popen[str]:
        environment = self.environment | more | ({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})
        return subprocess.Popen(
            [*ON_GPU, "--jobs-per-gpu", str(jobs_per_gpu), "--", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hold(self, devices: str, jobs_per_gpu: int = 1, **more: str) -> tuple[subprocess.Popen[str], str]:
        """A job that stays until its input ends, and the device that it got."""
        job = self.start(
            "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; read line", devices=devices, jobs_per_gpu=jobs_per_gpu, **more
        )
        assert job.stdout
        return job, job.stdout.readline().strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_eight_jobs_on_two_gpus_never_crowd_one(machine: Machine, tmp_path: Path) -> None:
    # Each job notes when it has its device and when it gives it back, one short append each, which is atomic.
    journal = tmp_path / "journal"
    note = f"echo + $CUDA_VISIBLE_DEVICES >> {journal}; sleep 0.2; echo - $CUDA_VISIBLE_DEVICES >> {journal}"
    jobs = [machine.start("sh", "-c", note, devices="0,1", jobs_per_gpu=2) for _ in range(8)]
    for job in jobs:
        job.communicate()
        assert job.returncode == 0
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for sign, device in map(str.split, journal.read_text().splitlines()):
        running[device] += 1 if sign == "+" else -1
        most[device] = max(most[device], running[device])
    assert set(most) == {"0", "1"}
    assert max(most.values()) <= 2
    assert not any(running.values())


def test_devices_are_spread_over_before_one_is_shared(machine: Machine) -> None:
    held = [machine.hold("4,6", jobs_per_gpu=2) for _ in range(4)]
    assert [device for _, device in held] == ["4", "6", "4", "6"]
    for job, _ in held:
        job.communicate()


def test_a_killed_job_frees_its_slot_and_the_one_waiting_gets_it(machine: Machine) -> None:
    first, device = machine.hold("3")
    second = machine.start("sh", "-c", "echo $CUDA_VISIBLE_DEVICES", devices="3")
    assert second.stderr
    assert second.stderr.readline() == "blip: every GPU slot is taken (1 GPU × 1), waiting for one\n"
    first.send_signal(signal.SIGKILL)  # the command itself: on-gpu became it
    out, err = second.communicate()
    assert (device, out) == ("3", "3\n")
    assert err == "blip: on GPU 3\n"
    assert first.wait() == -signal.SIGKILL
    first.communicate()


def test_batch_jobs_each_have_the_gpus_that_they_were_given(machine: Machine) -> None:
    # In a cgroup every job's only card is device 0: not the same card, and nothing to wait for.
    held = [machine.hold("0", SLURM_JOB_ID=job) for job in ("17", "18")]
    assert [device for _, device in held] == ["0", "0"]
    for job, _ in held:
        job.communicate()


@pytest.mark.parametrize(
    ("chosen", "devices"),
    [
        ("2", ["2"]),
        ("1, 0", ["1", "0"]),
        ("GPU-8932f937,MIG-7c6f/1/0", ["GPU-8932f937", "MIG-7c6f/1/0"]),
        ("0,-1,1", ["0"]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_a_choice_that_was_made_already_is_kept(
    chosen: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == devices


def test_devices_are_counted_in_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(blip.runs.gpus, "DEV", tmp_path)
    assert visible_devices() == []
    for name in ("nvidia2", "nvidia5", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_devices() == ["0", "1"]


def test_without_a_gpu_the_command_just_runs(machine: Machine) -> None:
    job = machine.start("sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES]"; exit 7', devices="")
    assert job.communicate() == ("[]\n", "")
    assert job.returncode == 7


@pytest.mark.parametrize(
    ("command", "expected"),
    [([], "COMMAND"), (["--jobs-per-gpu", "0", "--", "true"], "'0' is not a number"), (["--", "absent-7"], "absent-7")],
)
def test_bad_input_is_refused_in_one_line(machine: Machine, command: list[str], expected: str) -> None:
    job = subprocess.run([*ON_GPU, *command], env=machine.environment, capture_output=True, text=True)
    assert job.returncode == 2
    assert re.fullmatch(f"blip.*{expected}.*\n", job.stderr)


def test_a_slot_file_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blip.runs.gpus.tempfile, "gettempdir", lambda: str(tmp_path / "absent"))
    with pytest.raises(blip.runs.gpus.BlipError, match="cannot be made"):
        lock_folder()
    with pytest.raises(blip.runs.gpus.BlipError, match="cannot be written"):
        claim_slot(tmp_path / "absent", ["0"], 1)


def test_it_starts_without_the_libraries_that_take_seconds(machine: Machine) -> None:
    code = (
        "import sys, blip.cli, blip.runs.gpus; print(sorted({'torch', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=machine.environment, capture_output=True, text=True)
    assert run.stdout == "[]\n"
