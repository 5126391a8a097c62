"""The rooms of the package: what imports what, and how long functions get."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT


def kept(folder: Path) -> bool:
    """Whether the contracts of `folder` are kept; in a process of its own, since threads outlive the check."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert "Contracts:" in run.stdout, run.stdout + run.stderr
    return run.returncode == 0


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources under a name of their own, with their contracts."""
    shutil.copytree(ROOT / "blip", tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "copied").rglob("*.py"):
        path.write_text(path.read_text().replace("from blip", "from copied").replace("import blip", "import copied"))
    contracts = (ROOT / "pyproject.toml").read_text().partition("[tool.importlinter]")
    (tmp_path / "pyproject.toml").write_text("".join(contracts[1:]).replace('"blip', '"copied'))
    return tmp_path


def test_imports_run_downwards_and_in_no_circle() -> None:
    assert kept(ROOT)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("methods/sgd.py", "from copied.training import loop"),
        (
            "results/matrix.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from copied.results import metrics",
        ),
        ("core/formulas.py", "from copied.errors import BlipError"),
        ("games/names.py", "from copied.images import image_trainer"),
    ],
    ids=["upwards", "circle for types alone", "beside", "between kinds"],
)
def test_an_import_that_breaks_the_rules_is_seen(room: str, line: str, copy: Path) -> None:
    assert kept(copy)
    path = copy / "copied" / room
    path.write_text(f"{path.read_text()}\n{line}\n")
    assert not kept(copy)


def test_a_room_that_nobody_placed_is_seen(copy: Path) -> None:
    (copy / "copied" / "attic.py").write_text("")
    assert not kept(copy)


def test_no_function_is_longer_than_fifty_lines() -> None:
    functions = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in (ROOT / "blip").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(functions) > 300
    assert {name: lines for name, lines in functions.items() if lines > 50} == {}


def test_no_two_modules_have_one_name() -> None:
    modules = [p.stem for p in (ROOT / "blip").rglob("*.py") if not p.stem.startswith("__")]
    rooms = [p.parent.name for p in (ROOT / "blip").rglob("*/__init__.py")]
    assert sorted({*modules, *rooms}) == sorted([*modules, *rooms])


def test_no_two_classes_have_one_name() -> None:
    names = [
        node.name
        for path in (ROOT / "blip").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(names) > 90
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_the_page_has_every_room_in_its_picture_and_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    for room in (name.strip() for layer in rooms for name in layer.split("|")):
        assert re.search(rf"\b{room}\b", page.split("```")[1]), room
    paths = re.findall(r"`([\w/]+(?:/|\.py|\.toml))`", page)
    assert len(paths) > 25
    assert [
        path for path in paths if not any((ROOT / folder / path).exists() for folder in ("", "blip", "blip/results"))
    ] == []


def test_only_the_list_of_kinds_names_them() -> None:
    """Everything else asks an experiment, whatever its kind."""
    rooms = [p for p in (ROOT / "blip").rglob("*.py") if p.parent.name not in ("games", "images")]
    named = {p.name for p in rooms if re.search("(Game|Image)(Experiment|Trainer)", p.read_text())}
    assert named == {"config.py"}
