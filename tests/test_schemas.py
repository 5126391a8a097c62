"""JSON schemas of files written by hand: up to date, named in them, and of the same mind as the program."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml
from conftest import ROOT

from blip.cli import main
from blip.json_schemas import SCHEMAS

CONFIG = ROOT / "config"
EXPERIMENTS = [*sorted((CONFIG / "experiments").glob("*.yaml")), ROOT / "docs" / "examples" / "images.yaml"]
CLAIMS = CONFIG / "claims.yaml"
SUITES = [path for path in sorted(CONFIG.glob("*.yaml")) if path not in (CONFIG / "config.yaml", CLAIMS)]
FILES = [*(("experiment", path) for path in EXPERIMENTS), *(("suite", path) for path in SUITES), ("claims", CLAIMS)]


class AsEditorsRead(yaml.SafeLoader):
    """YAML 1.2, in which 1e-15 is a number and yes a word; PyYAML reads YAML 1.1."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for tag, pattern, first in (
    ("bool", "true|false", "tf"),
    ("null", "~|null|", ["~", "n", ""]),
    ("int", "[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", "<<", "<"),
):
    AsEditorsRead.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^({pattern})$"), list(first))


def as_editors_read(path: Path) -> Any:
    return yaml.load(path.read_text(), AsEditorsRead)


def validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = SCHEMAS[kind]()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_files_are_what_the_program_says(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", kind]) == 0
    said = capsys.readouterr().out
    assert (CONFIG / "schemas" / f"{kind}.json").read_text() == said, f"blip schema {kind} > config/schemas/{kind}.json"
    assert json.loads(said)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_every_file_names_its_schema_and_fits_it(kind: str, path: Path) -> None:
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert named, f"{path.name}: its first line names its schema"
    assert (path.parent / named[1]).resolve() == CONFIG / "schemas" / f"{kind}.json"
    assert [error.message for error in validator(kind).iter_errors(as_editors_read(path))] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"lr": 0.1, "batch_size": 8, "epochs": "many"}}, "'many' is not of type 'integer'"),
        ({"methods": {"ewc": {"strenght": 3}}}, "'strenght' was unexpected"),
        ({"methods": {"ewcc": {}}}, "'ewcc' was unexpected"),
        ({"trainning": {}}, "'trainning' was unexpected"),
        ({"network": {"name": "mlp", "hidden": []}}, "[] should be non-empty"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_seen_by_its_schema(change: dict[str, Any], said: str) -> None:
    values = as_editors_read(CONFIG / "experiments" / "digits5.yaml") | change
    assert said in " ".join(error.message for error in jsonschema_leaves(validator("experiment"), values))


def jsonschema_leaves(check: jsonschema.Draft202012Validator, values: Any) -> list[jsonschema.ValidationError]:
    """What is wrong, within choices too."""
    found = list(check.iter_errors(values))
    return found + [inner for error in found for inner in error.context or []]


def test_games_are_told_from_images() -> None:
    values = as_editors_read(CONFIG / "experiments" / "atari6.yaml")
    assert not list(validator("experiment").iter_errors(values))
    assert list(validator("experiment").iter_errors(values | {"heads": "shared"})), "a key of images"
