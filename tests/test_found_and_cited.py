"""What others find, cite and install the project by."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT

from blip.config import published

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCHEMAS = {
    "citation-file-format": ["CITATION.cff"],
    "github-workflows": [".github/workflows/ci.yml", ".github/workflows/build.yml"],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "github-issue-forms": [f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("broken", "method", "numbers")],
}


def read(name: str) -> Any:
    """A YAML file, in which `on` is a word, as GitHub has it."""
    values = yaml.safe_load((ROOT / name).read_text())
    return {("on" if key is True else key): value for key, value in values.items()}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SCHEMAS.items() for name in names])
def test_files_that_others_read_are_as_they_expect(kind: str, name: str) -> None:
    vendored = files("check_jsonschema").joinpath("builtin_schemas", "vendor", f"{kind}.json").read_text()
    schema = yaml.safe_load(vendored)
    problems = jsonschema.validators.validator_for(schema)(schema).iter_errors(read(name))
    assert [f"{list(p.absolute_path)}: {p.message[:200]}" for p in problems] == []


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["url"].endswith("2105.04444")
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_says_what_the_citation_says() -> None:
    citation = read("CITATION.cff")
    assert [author["name"] for author in PROJECT["authors"]] == [author["name"] for author in citation["authors"]]
    assert PROJECT["keywords"] == citation["keywords"]
    assert PROJECT["urls"] == {"Paper": citation["preferred-citation"]["url"]}
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert not any("License" in name for name in PROJECT["classifiers"]), "refused beside an expression"


ON_NODE_24 = {
    "actions/checkout": 5,
    "actions/deploy-pages": 5,
    "actions/setup-python": 6,
    "actions/upload-artifact": 6,
    "actions/upload-pages-artifact": 5,
    "astral-sh/setup-uv": 7,
}
"""The first major version of each action that runs on Node 24: runners have no older one."""


def test_actions_run_on_a_node_that_runners_have() -> None:
    for name in SCHEMAS["github-workflows"]:
        for action, version in re.findall(r"uses: (\S+)@v(\d+)", (ROOT / name).read_text()):
            assert int(version) >= ON_NODE_24[action], f"{name}: {action}"


def test_what_is_handed_out_is_built_when_what_it_is_made_of_changes() -> None:
    build = read(".github/workflows/build.yml")
    paths = build["on"]["pull_request"]["paths"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    for source in " ".join(copied).split():
        file = f"{source}/x.py" if (ROOT / source).is_dir() else source
        assert any(fnmatch(file, path) for path in paths), source
    publish = build["jobs"]["publish"]
    assert (publish["if"], publish["needs"]) == ("github.ref == 'refs/heads/main'", "docs")
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert build["permissions"] == {"contents": "read"}


def test_ci_calls_what_is_there() -> None:
    """Paths and make's targets; what they do is the same anywhere."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    steps = [
        step["run"]
        for name in SCHEMAS["github-workflows"]
        for job in read(name)["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert ".ci/run" in steps
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for step in steps:
        for target in re.findall(r"^make ([a-z-]+)$", step, re.M):
            assert target in targets, step
    assert any("make docs" in step for step in steps)


def test_the_workflow_is_laid_out_as_snakemakes_catalog_asks() -> None:
    """Its rules for standardized usage: https://snakemake.github.io/snakemake-workflow-catalog/docs/about/"""
    assert (ROOT / "workflow" / "Snakefile").is_file()
    assert (ROOT / "config" / "README.md").is_file()
    assert list((ROOT / "workflow" / "rules").glob("*.smk"))
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    stack = usage["software-stack-deployment"]
    assert set(stack) == {"conda", "apptainer", "apptainer+conda", "report"}
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert stack["report"] == ("report(" in rules)
    # The environment is made of the checkout, and the image is a file of it: neither is there where it is deployed.
    assert stack["conda"] == (
        "pip install --no-deps --editable ." not in (ROOT / "envs/environment.post-deploy.sh").read_text()
    )
    assert stack["apptainer"] == read("config/config.yaml")["container"].startswith("docker://")


TYPED = """\
from blip import BLIP, diagonal_fisher
from torch import nn
reveal_type(BLIP(nn.Linear(2, 2), f_prior=1e-13))
reveal_type(BLIP(nn.Linear(2, 2), f_prior=1e-13).capacity())
BLIP(nn.Linear(2, 2), f_prior="much")
"""


@pytest.mark.slow
def test_the_package_works_where_nothing_else_is(tmp_path: Path) -> None:
    """Built, installed from its wheel into an empty environment, and used in an empty folder."""
    bin, empty, venv = Path(sys.executable).parent, tmp_path / "empty", tmp_path / "venv"
    empty.mkdir()
    constraints = ROOT / "envs" / "constraints.txt"
    source = tmp_path / "source"
    for name in ("blip", "config"):  # no older build
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)

    def run(*command: object) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        result = subprocess.run([*map(str, command)], cwd=empty, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(bin / "uv", "build", "--quiet", "--out-dir", tmp_path / "dist", source)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    assert list((tmp_path / "dist").glob("*.tar.gz"))
    run(bin / "uv", "venv", "--quiet", "--python", sys.executable, venv)
    install = ("pip", "install", "--quiet", "--python", venv / "bin" / "python", "--constraint", constraints)
    run(bin / "uv", *install, wheel)
    blip = venv / "bin" / "blip"
    assert "f_prior: required" in run(blip, "methods")
    assert all(f"\n{name}\n" in f"\n{run(blip, 'experiments')}" for name in published())
    run(blip, "train", "digits5", "--method", "blip", "--seed", "0")
    assert (empty / "results" / "runs" / "digits5" / "blip" / "seed0" / "run.json").exists()
    assert "digits5" in run(blip, "results", "results/runs")
    assert "NOT RUN" in run(blip, "claims", "results/runs", "--no-checks")
    assert run(blip, "--version") == f"blip {PROJECT['version']}\n"
    (empty / "mine.yaml").write_text(run(blip, "experiments", "digits5").replace("name: digits5", "name: mine"))
    run(blip, "train", "mine.yaml", "--method", "sgd", "--set", "training.epochs=1")
    (empty / "typed.py").write_text(TYPED)
    checked = subprocess.run(
        [bin / "mypy", "--python-executable", venv / "bin" / "python", "typed.py"],
        cwd=empty,
        capture_output=True,
        text=True,
    ).stdout
    assert 'Revealed type is "blip.core.freezing.BLIP"' in checked
    assert 'Revealed type is "builtins.float"' in checked or 'Revealed type is "float"' in checked
    assert 'incompatible type "str"; expected "float"' in checked
