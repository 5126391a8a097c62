"""Experiments and suites: YAML files checked once, before anything runs; unknown keys are errors."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from blip.data import DataConfig, SourceConfig, is_present
from blip.errors import BlipError
from blip.games.actor_critic import AtariNetwork
from blip.games.settings import ENVIRONMENTS, EvaluationConfig, Game, PPOConfig
from blip.methods import METHODS
from blip.networks import AnyNetwork, NetworkSettings
from blip.schema import NAME, Settings, read_yaml, validate


class TrainingConfig(Settings):
    """SGD with a patience schedule, the same for every method."""

    lr: PositiveFloat
    batch_size: PositiveInt
    epochs: PositiveInt
    """At most so many in each task."""
    lr_patience: PositiveInt = 5
    """After so many epochs in a row without a lower validation loss the learning rate is divided by `lr_factor`."""
    lr_factor: float = Field(default=3, gt=1)
    lr_min: PositiveFloat = 1e-4
    """A task ends when its learning rate falls below this."""
    momentum: float = Field(default=0, ge=0, lt=1)


class Resources(Settings):
    """What one run of an experiment takes at most; the workflow asks a cluster for it. No number depends on it."""

    minutes: PositiveInt = 240
    memory_mb: PositiveInt = 4000
    gpu_memory_mb: PositiveInt = 2000
    """Only on a GPU."""

    @property
    def short(self) -> bool:
        """Whether a run is too short for a job of its own: the workflow trains all seeds of a method in one."""
        return self.minutes == 1


class _OneNetwork(Settings):
    network: NetworkSettings


class AnyExperiment(Settings):
    """What every experiment has: a name, and the settings of every method that can be run on it."""

    name: str = Field(pattern=NAME)
    about: str = ""
    stand_in: bool = False
    """Whether the data stand in for others; says so wherever a result shows."""
    methods: dict[str, dict[str, Any]]
    resources: Resources = Resources()

    @property
    def sources(self) -> list[SourceConfig]:
        """Of its data; games have none."""
        return []

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        """Everything that a run's numbers depend on, as plain values. Raises BlipError for an unknown method."""
        if method not in self.methods:
            raise BlipError(f"method {method}: not in {self.name} (it has {', '.join(self.methods)})")
        settings = method_settings(method, self.methods[method], self.name)
        return {
            **self.model_dump(mode="json", exclude={"methods", "about", "resources"}),
            "method": {
                "name": method,
                "version": METHODS[method].version,
                **settings.model_dump(mode="json"),
            },
            "seed": seed,
        }


class Experiment(AnyExperiment):
    """Classification: a task sequence, a network, and a schedule."""

    data: DataConfig
    network: NetworkSettings
    training: TrainingConfig
    network_changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of the network that are different for a method."""

    @property
    def sources(self) -> list[SourceConfig]:
        return self.data.sources

    def network_of(self, method: str) -> AnyNetwork:
        """The network that a method is run on."""
        changes = self.network_changes.get(method)
        if not changes:
            return self.network
        values = {"network": self.network.model_dump() | changes}
        return validate(_OneNetwork, values, f"{self.name}: network_changes.{method}").network

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        config = super().run_config(method, seed)
        del config["network_changes"]
        return config | {"network": self.network_of(method).model_dump(mode="json")}


class GameExperiment(AnyExperiment):
    """Reinforcement learning: Atari games to learn one after another, a network, PPO's settings, and the evaluation."""

    games: list[Game] = Field(min_length=1)
    network: AtariNetwork = AtariNetwork()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        return super().run_config(method, seed) | {"environments": ENVIRONMENTS}


def method_settings(method: str, values: dict[str, Any], where: str) -> Settings:
    """The checked settings of a registered method."""
    return validate(METHODS[method].Settings, values, f"{where}: methods.{method}")


def fingerprint(values: Any) -> str:
    """A short name for plain values, the same for equal ones."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_experiment(path: Path, overrides: dict[str, Any] | None = None) -> Experiment | GameExperiment:
    """An experiment file, with dotted `overrides` such as {"training.epochs": 5}; it is about games if it names some.

    Raises BlipError: one line that names the file, the key and what was expected.
    """
    values = read_yaml(path)
    for key, value in (overrides or {}).items():
        set_key(values, key, value, path)
    kind: type[Experiment | GameExperiment] = GameExperiment if "games" in values else Experiment
    experiment = validate(kind, values, str(path))
    for method, settings in experiment.methods.items():
        if method not in METHODS:
            raise BlipError(f"{path}: methods.{method}: unknown method (known: {', '.join(METHODS)})")
        method_settings(method, settings, str(path))
        if isinstance(experiment, GameExperiment) and not METHODS[method].games:
            raise BlipError(f"{path}: methods.{method}: trains on images of earlier tasks, which games do not have")
    if isinstance(experiment, Experiment):
        for method in experiment.network_changes:
            if method not in experiment.methods:
                raise BlipError(f"{path}: network_changes.{method}: not among the methods")
            experiment.network_of(method)
    return experiment


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
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise BlipError(f"--set {text}: the value is not valid YAML") from None


class SuiteEntry(Settings):
    """One experiment of a suite."""

    config: Path
    """The experiment file, relative to the suite's."""
    methods: list[str] | None = None
    """Of those that the experiment names; all where left out."""
    seeds: list[NonNegativeInt] | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the experiment to change."""
    only_if_present: bool = False
    """Left out where the raw data would have to be downloaded; games need none."""


class Suite(Settings):
    """Experiments to run, and the tables and figures over them."""

    name: str = Field(pattern=NAME)
    seeds: list[NonNegativeInt] = Field(min_length=1)
    experiments: list[SuiteEntry] = Field(min_length=1)


class PlannedExperiment(Settings):
    """An experiment of a suite with everything resolved."""

    path: Path
    overrides: dict[str, Any]
    experiment: Experiment | GameExperiment
    methods: list[str]
    seeds: list[int]


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
        )
    return suite.name, planned
