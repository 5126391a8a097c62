"""A results folder in, an RO-Crate out: what it holds, by what specifications require and by a validator."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from page_suite import write_suite
from run_folders import sign, write_run

from blip.errors import BlipError
from blip.results.crate import COMPLETED, PROCESS, WORKFLOW, write_crate

pytest.importorskip("rocrate", reason="the workflow's packages are not installed")

ROOT = Path(__file__).parents[1]
VALIDATOR = ROOT / "build/validator/bin/python"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite's folder, made by the workflow."""
    root: Path = tmp_path_factory.mktemp("suite")
    write_suite(root)
    (root / "index.html").write_text("<!DOCTYPE html>")
    for name in ("benchmarks", "logs", "checkpoints"):
        (root / name).mkdir()
        (root / name / "x").write_text(str(root))
    return root


@pytest.fixture(scope="module")
def crate(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crate(results, tmp_path_factory.mktemp("out") / "crate", author="A Name")


def entities(crate: Path) -> dict[str, dict[str, Any]]:
    """All entities by their identifiers."""
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def ids(value: Any) -> list[str]:
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def test_every_file_is_described_with_its_checksum(crate: Path) -> None:
    found = entities(crate)
    files = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    described = {name for name, entity in found.items() if "File" in entity["@type"]}
    assert described == files - {"ro-crate-metadata.json"}
    assert {*ids(found["./"]["hasPart"])} == described
    for name in described:
        content = (crate / name).read_bytes()
        assert found[name]["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert found[name]["encodingFormat"]
    expected = {"index.html", "tables/tables/mnist5.csv", "figures/mnist5/matrix.pdf", "games/atari/blip/1-1.gif"}
    expected |= {"configuration/mnist5/blip.json", "recipe/workflow/Snakefile", "recipe/workflow/rules/report.smk"}
    expected |= {"recipe/config/experiments/mnist5.yaml", "runs/mnist5/blip/seed4/accuracy.csv", "README.md"}
    assert expected <= files
    assert not any(name.startswith(("logs", "benchmarks", "checkpoints")) for name in files)


def test_all_that_is_spoken_of_is_there(crate: Path) -> None:
    """Every reference is to an entity, or to a word of the web."""
    found = entities(crate)

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [value["@id"]] if set(value) == {"@id"} else [r for v in value.values() for r in references(v)]
        return [r for v in value for r in references(v)] if isinstance(value, list) else []

    for entity in found.values():
        for reference in references(entity):
            assert reference in found or reference.startswith("https://"), (entity["@id"], reference)


def test_every_run_is_an_action(crate: Path, results: Path) -> None:
    found = entities(crate)
    runs = {name: entity for name, entity in found.items() if "seed" in name and entity["@type"] == "CreateAction"}
    assert len(runs) == len(list(results.rglob("run.json"))) == 23
    assert {*runs, "#workflow"} == {*ids(found["./"]["mentions"])}
    run = runs["#mnist5-blip-seed3"]
    assert run["description"] == "blip train mnist5 --raw raw"
    assert (run["startTime"], run["endTime"]) == ("2025-01-01T00:00:00", "2025-01-01T00:01:00")
    assert run["actionStatus"] == COMPLETED
    assert ids(run["agent"]) == ["#author"]
    assert ids(run["object"]) == ["configuration/mnist5/blip.json", "#seed-3"]
    assert {"runs/mnist5/blip/seed3/run.json", "runs/mnist5/blip/seed3/bits.csv"} <= {*ids(run["result"])}
    usage = {found[name]["name"]: found[name]["value"] for name in ids(run["resourceUsage"])}
    assert usage == {"processor": "a CPU", "CPU threads": "1", "peak memory in MB": "512"}
    software = found[ids(run["instrument"])[0]]
    assert (software["name"], software["softwareVersion"]) == ("blip-continual", "c0ffee")
    needs = {found[name]["name"]: found[name]["softwareVersion"] for name in ids(software["softwareRequirements"])}
    assert needs == {"python": "3.12", "torch": "2.6"}


def test_what_the_specifications_require(crate: Path) -> None:
    found = entities(crate)
    assert found["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = found["./"]
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    assert {PROCESS, WORKFLOW} <= {*ids(root["conformsTo"])}
    workflow = found[root["mainEntity"]["@id"]]
    assert {*workflow["@type"]} == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert found[workflow["programmingLanguage"]["@id"]]["name"] == "Snakemake"
    assert found["#workflow"]["instrument"] == root["mainEntity"]


def test_what_the_workflow_did_not_make_has_no_workflow(results: Path, tmp_path: Path) -> None:
    crate = write_crate(results / "runs/mnist5/blip", tmp_path / "crate")
    root = entities(crate)["./"]
    assert ids(root["conformsTo"]) == [PROCESS]
    assert "mainEntity" not in root
    assert not (crate / "recipe").exists()
    assert len(ids(root["mentions"])) == 5


def test_data_are_named_by_their_checksum_and_weights_come_where_asked(tmp_path: Path) -> None:
    write_run(tmp_path / "results", data="abc123", stand_in=True, gpu="a GPU")
    crate = write_crate(tmp_path / "results", tmp_path / "with", weights=True)
    found = entities(crate)
    run = found["#mnist5-blip-seed0"]
    assert ids(run["object"])[-1] == "#data-abc123"
    assert found["#data-abc123"]["identifier"] == "abc123"
    assert "stands in" in found["#data-abc123"]["description"]
    assert "#mnist5-blip-seed0-accelerator" in ids(run["resourceUsage"])
    weights = "runs/mnist5/blip/seed0/weights.safetensors"
    assert weights in ids(run["result"])
    assert weights not in entities(write_crate(tmp_path / "results", tmp_path / "without"))


def test_the_same_results_give_the_same_bytes_and_no_path_of_the_machine(
    crate: Path, results: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "blip.cli", "crate", str(results), "--out", "again", "--author", "A Name"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    for path in crate.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert content == (tmp_path / "again" / path.relative_to(crate)).read_bytes(), path
            for folder in (results, tmp_path, ROOT, Path.home()):
                assert f"{folder}/".encode() not in content, path
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_seeds_with_other_settings_have_their_own(tmp_path: Path) -> None:
    for seed, lr in enumerate((0.2, 0.7, 0.2)):
        write_run(tmp_path / "results", seed=seed, config={"training": {"lr": lr}, "seed": seed})
    found = entities(write_crate(tmp_path / "results", tmp_path / "crate"))
    settings = [ids(found[f"#mnist5-blip-seed{seed}"]["object"])[0] for seed in range(3)]
    own = "configuration/mnist5/blip-seed1.json"
    assert settings == ["configuration/mnist5/blip.json", own, "configuration/mnist5/blip.json"]
    assert json.loads((tmp_path / "crate" / own).read_text()) == {"training": {"lr": 0.7}}


def test_runs_that_are_damaged_or_there_twice_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "results")
    weights = run / "weights.safetensors"
    weights.write_bytes(b"other")
    write_crate(tmp_path / "results", tmp_path / "crate")
    with pytest.raises(BlipError, match=r"weights\.safetensors was changed"):
        write_crate(tmp_path / "results", tmp_path / "more", weights=True)
    sign(run)
    shutil.copytree(run, tmp_path / "results/again/seed0")
    with pytest.raises(BlipError, match="the same run as"):
        write_crate(tmp_path / "results", tmp_path / "more")
    shutil.rmtree(tmp_path / "results/again")
    (run / "bits.csv").unlink()
    with pytest.raises(BlipError, match=r"bits\.csv"):
        write_crate(tmp_path / "results", tmp_path / "more")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crate", "results"]


def test_the_recipe_is_what_is_under_version_control(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    for name in ("Snakefile", "workflow/Snakefile", "config/a.yaml", "config/README.md"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(name)
    git = ["git", "-C", clone, "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    (clone / "config/.secret").write_text("secret")
    monkeypatch.setattr("blip.results.crate.REPOSITORY", clone)
    for changed in ("", "+"):
        crate = write_crate(results, tmp_path / f"crate{changed}")
        packed = {str(path.relative_to(crate / "recipe")) for path in (crate / "recipe").rglob("*") if path.is_file()}
        assert packed == {"Snakefile", "workflow/Snakefile", "config/a.yaml"}
        found = entities(crate)
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True)
        assert found[found["./"]["mainEntity"]["@id"]]["version"] == commit.stdout.strip() + changed
        (clone / "workflow/Snakefile").write_text("changed")


def test_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    write_run(tmp_path / "results")
    script = """
import os, signal, sys
from pathlib import Path
import blip.results.crate as crate
crate._Crate._run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
crate.write_crate(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "results", tmp_path / "crate"], check=False)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".crate.")]) == 1
    write_crate(tmp_path / "results", tmp_path / "crate")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crate", "results"]


def test_what_is_refused(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(BlipError, match="full: expected a folder that is not there yet, or is empty"):
        write_crate(results, tmp_path / "full")
    with pytest.raises(BlipError, match="no finished runs"):
        write_crate(results / "tables", tmp_path / "crate")
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(BlipError, match=r"rocrate is not installed: pip install 'blip-continual\[workflow\]'"):
        write_crate(results, tmp_path / "crate")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.crate
@pytest.mark.parametrize("profile", ["workflow-run-crate-0.5", "process-run-crate-0.5"])
def test_a_validator_finds_nothing_wrong(crate: Path, results: Path, tmp_path: Path, profile: str) -> None:
    """Nor does it find everything right: without its licence and a run's software the crate fails."""
    assert VALIDATOR.exists(), "make crate-test brings it"
    folder = crate if "workflow" in profile else write_crate(results / "runs/mnist5/blip", tmp_path / "crate")
    assert issues(folder, profile, "REQUIRED") == []
    metadata = json.loads((folder / "ro-crate-metadata.json").read_text())
    for entity in metadata["@graph"]:
        if entity["@id"] == "./":
            del entity["license"]
        if entity["@id"] == "#mnist5-blip-seed3":
            del entity["instrument"]
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    (spoiled / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    found = issues(spoiled, profile, "REQUIRED")
    assert any("license" in issue for issue in found)
    assert any("instrument" in issue for issue in found)


def issues(crate: Path, profile: str, severity: str) -> list[str]:
    """What the validator has to say."""
    command = [VALIDATOR, ROOT / "tests/validate_crate.py", crate, profile, severity]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
