"""The locked requirements: complete, hashed, and without an address; the Dockerfile: nothing that old builders lack."""

import re
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

LOCKS = sorted((ROOT / "envs").glob("*.lock.txt"))


def pins(path: Path) -> dict[str, set[str]]:
    """Versions by package; there may be several, for different Pythons and systems."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", path.read_text(), re.M):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("path", [*LOCKS, ROOT / "envs" / "constraints.txt"], ids=lambda path: path.name)
def test_no_address_and_no_path_is_in_a_lock(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)[~.]*/", text), "a path"
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_locked_requirement_has_a_hash(path: Path) -> None:
    requirements = path.read_text().replace("\\\n", " ").splitlines()
    assert len(requirements) == len(pins(path)) > 1
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in requirements)


def test_the_image_gets_every_dependency_at_its_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["workflow"],
        *project["optional-dependencies"]["rl"],
    ]
    locked, tested = pins(ROOT / "envs" / "cuda.lock.txt"), pins(ROOT / "envs" / "constraints.txt")
    assert {re.split(r"[\[><=]", requirement)[0] for requirement in wanted} <= set(locked)
    for name, versions in locked.items():
        assert len(versions) == 1
        assert versions <= tested.get(name, set()), f"{name} was not tested at this version"


def test_the_dockerfile_uses_nothing_that_old_builders_lack() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for feature in ("<<", "--link", "RUN --network", "# syntax"):
        assert feature not in text
    assert not re.search(r"COPY --from=\S*\$", text), "an argument in COPY --from"
    assert re.search(r"^USER \d+:\d+$", text, re.M)
    final = text[text.rindex("\nFROM ") :]
    assert "\nRUN " not in final
