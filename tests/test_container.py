"""The image is built for real, without any image registry, and the workflow runs in it: `make container-test`.

Needs root, Debian's packages and PyPI, about half an hour and 30 GB of disk for a while. What is built lies in a
temporary folder and is removed; name a folder in BLIP_CONTAINER_WORK to keep it for the next time.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TINY

pytestmark = pytest.mark.container

SCRIPTS = Path(__file__).parent / "container"
PACKAGES = ("buildah", "mmdebstrap", "patchelf", "uidmap")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
IMAGE = "localhost/blip:test"
SUITE = "name: small\nseeds: [0]\nexperiments:\n  - {config: tiny.yaml, methods: [blip, ewc]}\n"


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command; its last lines as the failure where it fails."""
    result = subprocess.run(
        [*map(str, command)], cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-30:])
        pytest.fail(f"{' '.join(map(str, command))}: status {result.returncode}\n{tail}", pytrace=False)
    return result.stdout


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder for images and containers, with the tools installed."""
    if os.geteuid():
        pytest.fail("container-test: run it as root (it builds images and installs packages)", pytrace=False)
    if shutil.which("apt-get") is None:
        pytest.fail("container-test: needs a Debian or Ubuntu system with apt-get", pytrace=False)
    run("apt-get", "-qq", "update")
    run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *PACKAGES)
    kept = os.environ.get("BLIP_CONTAINER_WORK")
    folder = Path(kept) if kept else Path("/var/tmp/blip-container-test")  # /tmp may be small, and in memory
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if not kept:
        run(*buildah(folder), "unmount", "--all")
        shutil.rmtree(folder)


def buildah(work: Path) -> list[str]:
    """buildah with images and containers in `work`."""
    return ["buildah", "--root", f"{work}/storage", "--runroot", f"{work}/run", "--storage-driver", "overlay"]


@pytest.fixture(scope="module")
def image(work: Path) -> str:
    """The image, built from the Dockerfile on stand-ins for its base images."""
    if "localhost/python" not in run(*buildah(work), "images"):
        run("bash", SCRIPTS / "base.sh", work, Path(sys.executable).parent / "uv", *buildah(work))
    (work / "uv.toml").write_text("system-certs = true\n")
    build(work, IMAGE, "--layers")
    return IMAGE


def build(work: Path, name: str, *options: str) -> None:
    """Build the Dockerfile, as of a fixed time."""
    # The machine's own certificates and settings are mounted, so that the Dockerfile names nothing of it.
    mounts = ("-v", f"{CERTIFICATES}:{CERTIFICATES}:ro", "-v", f"{work}/uv.toml:/etc/uv/uv.toml:ro")
    bases = ("--build-arg", "BASE_IMAGE=localhost/python:3.11", "--build-arg", "UV_IMAGE=localhost/uv:latest")
    fixed = ("--isolation", "chroot", "--timestamp", "0")
    run(*buildah(work), "bud", *fixed, *options, *mounts, *bases, "-t", name, ROOT)


@pytest.fixture(scope="module")
def apptainer(work: Path) -> str:
    """An Apptainer program."""
    found = shutil.which("apptainer")
    if found:
        return found
    if not (work / "apptainer" / "bin" / "apptainer").exists():
        run("bash", SCRIPTS / "apptainer.sh", work / "apptainer")
    return str(work / "apptainer" / "bin" / "apptainer")


@pytest.fixture(scope="module")
def sandbox(work: Path, image: str, apptainer: str) -> Path:
    """The image as a folder that Apptainer runs."""
    archive, folder = work / "image.tar", work / "sandbox"
    run(*buildah(work), "push", "--quiet", "--disable-compression", image, f"oci-archive:{archive}")
    run(
        apptainer,
        "build",
        "--force",
        "--sandbox",
        folder,
        f"oci-archive:{archive}",
        env={"APPTAINER_TMPDIR": str(work)},
    )
    archive.unlink()
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the package's source beside the workflow, and a suite of two short runs."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "config", "envs", "blip"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "small.yaml").write_text(SUITE)
    return folder


def test_the_image_is_configured_to_be_run_by_anybody(image: str, work: Path) -> None:
    inspected = json.loads(run(*buildah(work), "inspect", "--type", "image", image))
    config = inspected["OCIv1"]["config"]
    user, _, group = config["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert {"PYTHONSAFEPATH=1", "PYTHONNOUSERSITE=1"} <= set(config["Env"])
    assert config["Labels"]["org.opencontainers.image.title"] == "blip-continual"


def test_the_image_carries_nothing_of_the_build(sandbox: Path) -> None:
    for path in ("src", "wheel", "opt/build", "usr/local/bin/uv", "etc/uv", "root/.cache"):
        assert not (sandbox / path).exists(), path
    packages = next(sandbox.glob("opt/blip/lib/python3*/site-packages"))
    metadata = next(packages.glob("blip_continual-*.dist-info"))
    assert not (metadata / "direct_url.json").exists(), "it would name where it was built"
    assert not (metadata / "uv_cache.json").exists()
    for name in ("pyvenv.cfg", "bin/blip"):
        assert str(ROOT) not in (sandbox / "opt" / "blip" / name).read_text()


def test_python_in_a_checkout_imports_the_images_package(sandbox: Path, clone: Path, apptainer: str) -> None:
    command = "import blip; print(blip.__path__[0])"
    inside = (apptainer, "exec", "--cleanenv", "--bind", clone, "--pwd", clone, sandbox)
    assert run(*inside, "python", "-c", command).startswith("/opt/blip/")
    assert "bit-level" in run(*inside, "blip", "--help")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that Apptainer does not show to a job by itself, as it does the working directory, /tmp and /var/tmp."""
    folder = Path("/srv/blip-container-test")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_the_workflow_runs_in_it_and_gives_the_same_numbers_as_outside(
    sandbox: Path, clone: Path, apptainer: str, elsewhere: Path
) -> None:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{Path(apptainer).parent}{os.pathsep}{os.environ['PATH']}"
    snakemake = (Path(sys.executable).parent / "snakemake", "--cores", "2")
    for where, options in (("inside", ("--sdm", "apptainer")), ("outside", ())):
        results = elsewhere / where
        settings = ("suite=small.yaml", f"results={results}", f"data={results}/data", f"container={sandbox}")
        run(*snakemake, *options, "--config", *settings, cwd=clone, env={"PATH": binaries, "OMP_NUM_THREADS": "1"})
    for method in ("blip", "ewc"):
        folders = {
            where: elsewhere / where / "small" / "runs" / "tiny" / method / "seed0" for where in ("inside", "outside")
        }
        provenance = json.loads((folders["inside"] / "run.json").read_text())["provenance"]
        assert provenance["commit"].startswith("version "), "the image's package, which has no repository"
        accuracy = {where: (folder / "accuracy.csv").read_text() for where, folder in folders.items()}
        assert accuracy["inside"] == accuracy["outside"]
    assert (elsewhere / "inside" / "small" / "tables" / "tables.md").exists()


def test_two_builds_give_the_same_digest(image: str, work: Path) -> None:
    build(work, "localhost/blip:again", "--layers", "--no-cache")  # layered like the first, or it differs in that
    digests = [
        json.loads(run(*buildah(work), "inspect", "--type", "image", name))["FromImageDigest"]
        for name in (image, "localhost/blip:again")
    ]
    assert digests[0] == digests[1]
    run(*buildah(work), "rmi", "localhost/blip:again")
