"""The workflow on a real SLURM, with one job cancelled half-way (make slurm-test).

With BLIP_IMAGE, an image for Apptainer, SLURM's jobs run in it; those that they are compared with never do.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster, obstacle
from conftest import ROOT

pytestmark = pytest.mark.slurm

LONG, LONG_RUN = "train_pdigits", "runs/pdigits/blip/seed0"
SUITE = "suite=tests/slurm/suite.yaml"
FAST = ("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "2")
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = obstacle()
    if not reason and not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        reason = "snakemake-executor-plugin-slurm is missing: pip install 'blip-continual[slurm]'"
    if reason:
        pytest.fail(f"no SLURM was started: {reason}", pytrace=False)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone holds of the workflow and of this test's suite."""
    for name in ("workflow", "config", "envs", "tests/slurm"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "profiles").symlink_to("workflow/profiles")
    return tmp_path


@contextmanager
def snakemake(
    checkout: Path, results: str, *arguments: str, settings: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Snakemake in the checkout, with data and results of its own; its output goes to <results>.txt."""
    settings = ("--config", SUITE, f"results={results}", f"data={results}/data", *settings)
    with (checkout / f"{results}.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments, *settings],
            cwd=checkout,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # the test failed or was interrupted: what Ctrl-C does
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


def cancel_when_half_way(cluster: Cluster, checkpoint: Path, process: subprocess.Popen[bytes]) -> None:
    """`scancel` the long run's job as soon as it has written a checkpoint."""
    while not checkpoint.exists():
        assert process.poll() is None, "snakemake ended before the long run had a checkpoint"
        time.sleep(0.5)
    jobs = [line.split(" ", 1) for line in cluster.output("squeue", "--noheader", "--format=%i %k").splitlines()]
    (job,) = (number for number, comment in jobs if LONG in comment)
    cluster.output("scancel", job)


def test_a_cancelled_job_goes_on_and_the_numbers_are_those_of_an_uninterrupted_run(
    cluster: Cluster, checkout: Path
) -> None:
    with snakemake(checkout, "reference", "--cores", "2") as process:
        assert process.wait() == 0, (checkout / "reference.txt").read_text()

    out, expected = (checkout / results / "cluster" for results in ("slurm", "reference"))
    key = json.loads((expected / LONG_RUN / "run.json").read_text())["key"]
    image = os.environ.get("BLIP_IMAGE")
    container = ("--sdm", "apptainer") if image else ()
    settings = (f"container={image}",) if image else ()
    profile = ("--profile", "workflow/profiles/slurm")
    with snakemake(checkout, "slurm", *profile, *FAST, *container, settings=settings) as process:
        cancel_when_half_way(cluster, out / "checkpoints" / key / "checkpoint.pt", process)
        status = process.wait()
    output = (checkout / "slurm.txt").read_text()
    assert status == 0, output
    assert "Trying to restart job" in output
    log = (out / "logs" / "train" / "pdigits-blip-seed0.log").read_text()
    resumed = re.search(r"going on at task (\d+), epoch (\d+)", log)
    assert resumed, log
    assert resumed.groups() != ("1", "1")
    assert (out / "tables" / "scores.csv").read_bytes() == (expected / "tables" / "scores.csv").read_bytes()
    for run in (expected / "runs").rglob("weights.safetensors"):
        assert (out / run.relative_to(expected)).read_bytes() == run.read_bytes()

    run = json.loads((out / LONG_RUN / "run.json").read_text())
    assert run["provenance"]["commit"].startswith("version ") == bool(image), "the image has no repository"
    devices = [re.findall(r"on GPU (\d)", log.read_text()) for log in (out / "logs" / "train").iterdir()]
    assert len(devices) == 3, "of three jobs: short runs of a seed share one"
    assert all(device in (["0"], ["1"]) for device in devices)


def test_concurrent_jobs_have_different_gpus(cluster: Cluster, tmp_path: Path) -> None:
    # Each says which GPU it has and stays until the other has said so too.
    wait = f"while [ $(ls {tmp_path}/job.* | wc -l) -lt 2 ]; do sleep 0.1; done"
    command = f"blip on-gpu -- sh -c 'echo $CUDA_VISIBLE_DEVICES > {tmp_path}/job.$SLURM_JOB_ID; {wait}'"
    jobs = [
        subprocess.Popen(
            ["sbatch", "--wait", "--gpus=1", f"--output={tmp_path}/log-%j", "--wrap", command], env=ENVIRONMENT
        )
        for _ in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    assert sorted(path.read_text() for path in tmp_path.glob("job.*")) == ["0\n", "1\n"]
