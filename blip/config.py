"""Experiments and suites: YAML files checked once, before anything runs; unknown keys are errors."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, SerializeAsAny

from blip.data import is_present
from blip.errors import BlipError
from blip.experiment import Experiment
from blip.games.game_experiment import GameExperiment
from blip.images.image_experiment import ImageExperiment
from blip.schema import NAME, Schema, parse_yaml, read_yaml, validate

T = TypeVar("T")

KINDS: tuple[type[Experiment], ...] = (GameExperiment, ImageExperiment)
"""Every kind of experiment; a file is of the first whose `key` it has, and of the last where it has none of them."""

PUBLISHED = Path(__file__).parent / "experiments"
"""The experiment files that come with the package."""


def published() -> dict[str, Path]:
    """Files of the experiments that come with the package, by name."""
    return {path.stem: path for path in sorted(PUBLISHED.glob("*.yaml"))}


def experiment_file(name: Path) -> Path:
    """The file that `name` is, or else that of the published experiment of this name.

    Raises BlipError where it is a bare name that nothing has.
    """
    if name.is_file() or len(name.parts) != 1 or name.suffix in (".yaml", ".yml"):
        return name
    if (found := published().get(str(name))) is None:
        raise BlipError(f"{name}: no file, and no published experiment (known: {', '.join(published())})")
    return found


def fingerprint(values: Any) -> str:
    """A short name for plain values, the same for equal ones."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_experiment(path: Path, overrides: dict[str, Any] | None = None) -> Any:
    """An experiment file, with dotted `overrides` such as {"training.epochs": 5}, as an `Experiment` of its kind.

    Raises BlipError: one line that names the file, the key and what was expected.
    """
    values = read_yaml(path)
    for key, value in (overrides or {}).items():
        set_key(values, key, value, path)
    kind = next((kind for kind in KINDS if kind.key in values), KINDS[-1])
    return validate(kind, values, str(path))


def set_key(values: dict[str, Any], key: str, value: Any, where: Path) -> None:
    """Set a dotted key in nested mappings."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise BlipError(f"{where}: {key}: {parent} holds no keys")
        values = inner
    values[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """`training.epochs=5` as ("training.epochs", 5)."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise BlipError(f"--set {text}: expected KEY=VALUE, such as training.epochs=5")
    try:
        return key, parse_yaml(value)
    except yaml.YAMLError:
        raise BlipError(f"--set {text}: the value is not valid YAML") from None


def _each_once(values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise ValueError("expected each once")
    return values


def _distinct(values: list[Any]) -> list[Any]:
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError("expected values, each once")
    return values


Seeds = Annotated[list[NonNegativeInt], AfterValidator(_each_once), Field(min_length=1)]


class Tuning(Schema):
    """How settings are chosen: by the accuracy on validation images of the first tasks (`blip tune`)."""

    tasks: PositiveInt = 3
    """So many first tasks are trained."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training images held out where the experiment holds out none."""
    seeds: Seeds = Field(default=[0])
    grids: dict[str, dict[str, Annotated[list[Any], AfterValidator(_distinct)]]]
    """Of each method, the values to try by name of the setting; all combinations."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the experiment to change while settings are chosen, such as fewer epochs."""


class SuiteEntry(Schema):
    """One experiment of a suite."""

    config: Path
    """The experiment file, relative to the suite's."""
    methods: Annotated[list[str], AfterValidator(_each_once)] | None = None
    """Of those that the experiment names; all where left out."""
    seeds: Seeds | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the experiment to change."""
    tune: Tuning | None = None
    """What the workflow's rules `tune_…` try when asked for; the runs of the suite do not depend on it."""
    only_if_present: bool = False
    """Left out where the raw data would have to be downloaded; games need none."""


class Suite(Schema):
    """Experiments to run, and the tables and figures over them."""

    name: str = Field(pattern=NAME)
    seeds: Seeds
    weights: bool = True
    """Whether run folders hold the networks' weights, which tables and figures do not need."""
    experiments: list[SuiteEntry] = Field(min_length=1)


class PlannedExperiment(Schema):
    """An experiment of a suite with everything resolved."""

    path: Path
    overrides: dict[str, Any]
    experiment: SerializeAsAny[Experiment]
    methods: list[str]
    seeds: list[int]
    tune: Tuning | None
    weights: bool


def load_suite(path: Path, raw: Path) -> tuple[str, dict[str, PlannedExperiment]]:
    """A suite file: its name, and its experiments by name. Entries whose data are not in `raw` may be left out.

    Raises BlipError: one line that names the file, the key and what was expected.
    """
    suite = validate(Suite, read_yaml(path), str(path))
    planned: dict[str, PlannedExperiment] = {}
    for entry in suite.experiments:
        experiment_path = path.parent / entry.config
        experiment = load_experiment(experiment_path, entry.set)
        methods = entry.methods or list(experiment.methods)
        for method in methods:
            if method not in experiment.methods:
                raise BlipError(f"{path}: methods: {method} is not among those of {experiment_path}")
        for method in entry.tune.grids if entry.tune else ():
            if method not in experiment.methods:
                raise BlipError(f"{path}: tune.grids: {method} is not among the methods of {experiment_path}")
        if experiment.name in planned:
            raise BlipError(f"{path}: experiments: {experiment.name} is there twice")
        if entry.only_if_present and not all(is_present(source, raw) for source in experiment.sources):
            continue
        planned[experiment.name] = PlannedExperiment(
            path=experiment_path,
            overrides=entry.set,
            experiment=experiment,
            methods=methods,
            seeds=entry.seeds or suite.seeds,
            tune=entry.tune,
            weights=suite.weights,
        )
    return suite.name, planned
