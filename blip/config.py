"""Experiments and suites: YAML files checked once, before anything runs; unknown keys are errors."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, SerializeAsAny
from pydantic_core import to_jsonable_python

from blip.data import is_present
from blip.errors import BlipError
from blip.experiment import Experiment
from blip.games.game_experiment import GameExperiment
from blip.images.image_experiment import ImageExperiment
from blip.record import Variant
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


def load_experiment(path: Path, overrides: dict[str, Any] | None = None, varied: dict[str, Any] | None = None) -> Any:
    """An experiment file, with dotted `overrides` such as {"training.epochs": 5}, as an `Experiment` of its kind.

    Those in `varied` make it a variant, with a name of its own. Raises BlipError: one line that names the file, the key
    and what was expected.
    """
    values = read_yaml(path)
    changes = {**(overrides or {}), **(varied or {})}
    for key, value in changes.items():
        set_key(values, key, value, path)
    if "variant" in values:
        raise BlipError(f"{path}: variant: unknown key")
    changed = f", changed in {', '.join(changes)}" if changes else ""
    experiment = validate(kind_of(values), values, f"{path}{changed}")
    if not varied:
        return experiment
    variant = Variant(of=experiment.name, settings={key: _value_at(experiment, key) for key in varied})
    named = values | {"name": variant.name, "variant": variant.model_dump()}
    return validate(type(experiment), named, f"{path}: {', '.join(varied)}")


def kind_of(values: dict[str, Any]) -> type[Experiment]:
    """Of what an experiment file holds."""
    return next((kind for kind in KINDS if kind.key in values), KINDS[-1])


def set_key(values: dict[str, Any], key: str, value: Any, where: Path) -> None:
    """Set a dotted key in nested mappings and lists; a list's parts have the numbers 0, 1, … as keys."""
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else inner[_place(inner, parent, key, where)]
        if not isinstance(inner, dict | list):
            raise BlipError(f"{where}: {key}: {parent} holds no keys")
    inner[last if isinstance(inner, dict) else _place(inner, last, key, where)] = value


def _place(values: list[Any], part: str, key: str, where: Path) -> int:
    if not part.isdecimal() or int(part) >= len(values):
        raise BlipError(f"{where}: {key}: expected a number below {len(values)} in place of {part}")
    return int(part)


def _value_at(values: Any, key: str) -> Any:
    """The plain value of a dotted key as it was understood: 1e-12 is a text in YAML."""
    for part in key.split("."):
        if isinstance(values, Schema):
            values = getattr(values, part)
        else:
            values = values[part if isinstance(values, dict) else int(part)]
    return to_jsonable_python(values)


def parse_override(text: str, option: str = "--set") -> tuple[str, Any]:
    """`training.epochs=5`, given by an option of the command line, as ("training.epochs", 5)."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise BlipError(f"{option} {text}: expected KEY=VALUE, such as training.epochs=5")
    try:
        return key, parse_yaml(value)
    except yaml.YAMLError:
        raise BlipError(f"{option} {text}: the value is not valid YAML") from None


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
    """Of each method, the values to try by name of a setting, or of its training (`training.lr`): all combinations."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the experiment to change while settings are chosen, such as fewer epochs."""


class SuiteEntry(Schema):
    """One experiment of a suite."""

    config: Path
    """The experiment file, relative to the suite's."""
    methods: Annotated[list[str], AfterValidator(_each_once), Field(min_length=1)] | None = None
    """Of those that the experiment names; all where left out."""
    seeds: Seeds | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the experiment to change."""
    vary: dict[str, Annotated[list[Any], AfterValidator(_distinct)]] = Field(default_factory=dict)
    """Dotted keys of the experiment and values for each: an experiment for every value, or combination of values."""
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
    varied: dict[str, Any]
    experiment: SerializeAsAny[Experiment]
    methods: list[str]
    seeds: list[int]
    tune: Tuning | None
    weights: bool


def is_suite(path: Path) -> bool:
    """Whether a file lists experiments instead of being one. Raises BlipError where it cannot be read."""
    return "experiments" in read_yaml(path)


def dotted_key(method: str, key: str) -> str:
    """The experiment's dotted key of a setting of the method, or of its training: `training.lr` is tried as well."""
    of_training = key.removeprefix("training.")
    return f"methods.{method}.{key}" if of_training == key else f"training_changes.{method}.{of_training}"


def load_trial(
    path: Path, overrides: dict[str, Any], method: str, point: Mapping[str, Any], asked: Tuning
) -> Experiment:
    """The experiment's first tasks with settings of a method at a `point` of what is `asked` of it.

    Raises BlipError for what is wrong with them, and where there are no validation images to choose by.
    """
    experiment: Experiment = load_experiment(path, overrides)
    experiment.run_config(method, 0)  # an unknown method is told before its settings
    changes = experiment.trial(asked.tasks, asked.validation)
    if not changes:
        raise BlipError(f"{path}: settings are chosen by validation images, of which it has none")
    name = {"name": f"{experiment.name}.trial"}  # its splits are others
    settings = {dotted_key(method, key): value for key, value in point.items()}
    trial: Experiment = load_experiment(path, {**overrides, **name, **changes, **settings})
    return trial


def load_suite(path: Path, raw: Path | None) -> tuple[str, dict[str, PlannedExperiment]]:
    """A suite file: its name, and its experiments by name. Entries whose data are not in `raw` may be left out.

    None as `raw` leaves out none.

    Raises BlipError: one line that names the file, the key and what was expected.
    """
    suite = validate(Suite, read_yaml(path), str(path))
    planned: dict[str, PlannedExperiment] = {}
    taken: set[str] = set()
    for entry in suite.experiments:
        plans = _plans(path, suite, entry)
        groups = {plan.experiment.variant.group for plan in plans if plan.experiment.variant}
        for name in [*groups, *(plan.experiment.name for plan in plans)]:
            if name in taken:
                raise BlipError(f"{path}: experiments: {name} is there twice")
            taken.add(name)
        planned |= {
            plan.experiment.name: plan
            for plan in plans
            if raw is None or not entry.only_if_present or _has_data(plan.experiment, raw)
        }
    return suite.name, planned


def _has_data(experiment: Experiment, raw: Path) -> bool:
    return all(is_present(source, raw) for source in experiment.sources)


def _plans(path: Path, suite: Suite, entry: SuiteEntry) -> list[PlannedExperiment]:
    """The experiments of an entry: one, or where settings are varied one for each combination of their values."""
    file = path.parent / entry.config
    plans = []
    for values in product(*entry.vary.values()):
        varied = dict(zip(entry.vary, values, strict=True))
        experiment = load_experiment(file, entry.set, varied)
        methods = entry.methods or list(experiment.methods)
        _check_methods(path, entry, experiment, methods)
        check_effect(path, experiment, methods, entry.set, varied)
        plans.append(
            PlannedExperiment(
                path=file,
                overrides=entry.set,
                varied=varied,
                experiment=experiment,
                methods=methods,
                seeds=entry.seeds or suite.seeds,
                tune=entry.tune,
                weights=suite.weights,
            )
        )
    return plans


def check_effect(
    where: Path, experiment: Experiment, methods: Iterable[str], changed: Iterable[str], varied: Iterable[str]
) -> None:
    """That no changed or varied key of the network or the training is one that a method has a value of its own for.

    That value counts, so the change would do nothing of the method; where it is changed as well, this is meant.
    Raises BlipError.
    """
    changed, varied = set(changed), set(varied)
    for key in sorted(changed | varied):
        part, _, rest = key.partition(".")
        own = getattr(experiment, f"{part}_changes", {})
        for method in methods:
            instead = f"{part}_changes.{method}.{rest}"
            if rest.partition(".")[0] in own.get(method, {}) and (key in varied or instead not in changed):
                raise BlipError(f"{where}: {key}: changes nothing of {method}: expected {instead}")


def _check_methods(path: Path, entry: SuiteEntry, experiment: Experiment, methods: list[str]) -> None:
    for key, named in {"methods": methods, "tune.grids": entry.tune.grids if entry.tune else ()}.items():
        for method in named:
            if method not in experiment.methods:
                among = "those" if key == "methods" else "the methods"
                raise BlipError(f"{path}: {key}: {method} is not among {among} of {path.parent / entry.config}")
    if entry.vary and entry.tune:
        raise BlipError(f"{path}: vary: settings are either varied or tuned")
    if entry.tune:
        for method, grid in entry.tune.grids.items():
            first = {key: values[0] for key, values in grid.items()}
            load_trial(path.parent / entry.config, entry.set | entry.tune.set, method, first, entry.tune)
    check_varied(f"{path}: vary.", methods, entry.vary)


def check_varied(where: str, methods: Iterable[str], varied: Iterable[str]) -> None:
    """That no varied key is of one method where others are run too: their runs would be named as if they had changed.

    `where` is what an error starts with, right before the key. Raises BlipError.
    """
    for key in varied:
        first, _, rest = key.partition(".")
        of_one = first in ("methods", "training_changes", "network_changes")
        if of_one and (others := [m for m in methods if m != rest.partition(".")[0]]):
            raise BlipError(f"{where}{key}: changes nothing of {others[0]}: expected its own method in methods")
