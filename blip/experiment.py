"""What an experiment is, whatever is learned in it: the interface that everything else asks."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import Field, PositiveInt, SerializeAsAny, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from blip.data import SourceConfig
from blip.errors import BlipError
from blip.methods import METHODS
from blip.networks import MultiHeadNetwork
from blip.record import COST, MEMORY, Score, Table, Variant
from blip.schema import NAME, Schema, as_said, later, wrong
from blip.seeding import address
from blip.training.checkpoint import Checkpoint
from blip.training.loop import Setup, Trainer


class Resources(Schema):
    """What one run of an experiment takes at most; the workflow asks a cluster for it. No number depends on it."""

    minutes: PositiveInt = 240
    memory_mb: PositiveInt = 4000

    @property
    def short(self) -> bool:
        """Whether a run is too short for a job of its own: the workflow trains all methods of a seed in one."""
        return self.minutes == 1


class Inputs(Protocol):
    """What a run learns from."""

    @property
    def checksum(self) -> str:
        """Of the data; empty where there are none."""

    @property
    def names(self) -> list[str]:
        """Of the tasks."""

    @property
    def outputs(self) -> list[int]:
        """Classes or actions of each task."""


class Experiment(Schema):
    """A named sequence of tasks, and the settings of every method that can be run on it.

    A kind of experiment is a subclass in a folder of its own, and a line in `blip.config.KINDS`. The class attributes
    say what it measures; `inputs` and `trainer` how a run is made.
    """

    key: ClassVar[str]
    """The key of a file by which its kind is known."""
    score: ClassVar[Score]
    kind_tables: ClassVar[tuple[Table, ...]]
    """What its runs measure, besides `COST`, `MEMORY` and the method's own."""
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy", "safetensors")
    """Whose versions its runs record."""
    playable: ClassVar[bool] = False
    """Whether what was learned can be played again, as moving pictures (`blip games`)."""

    name: str = Field(pattern=NAME)
    about: str = ""
    stand_in: bool = False
    """Whether the data stand in for others; says so wherever a result shows."""
    variant: Variant | None = later(None)
    """Where it is one of several in which settings are varied: set by `vary` of a suite and `--vary`, not in files."""
    methods: dict[str, SerializeAsAny[Schema]] = Field(min_length=1)
    resources: Resources = Resources()

    @field_validator("methods", mode="before")
    @classmethod
    def _checked_methods(cls, values: Any) -> Any:
        return {name: _settings(name, value) for name, value in values.items()} if isinstance(values, dict) else values

    @property
    def sources(self) -> list[SourceConfig]:
        """Of its data, where it has any."""
        return []

    @property
    def group(self) -> str:
        """What it is drawn in: its own name, or that of all variants with the same settings varied."""
        return self.variant.group if self.variant else self.name

    @property
    def split_name(self) -> str:
        """Of what its tasks are made of: variants with the same data share it."""
        changed = self.variant is not None and any(key.startswith("data.") for key in self.variant.settings)
        return self.name if changed else self.group

    def trial(self, tasks: int, validation: float) -> dict[str, Any]:
        """Dotted keys and values by which it becomes a trial of its first `tasks`, tested on what is held out of
        training: `validation` where it holds out nothing yet. Empty where settings cannot be chosen so."""
        return {}

    def tf32(self, method: str) -> bool:
        """Whether a GPU may compute a method's products and convolutions in it."""
        return False

    def tables_of(self, method: str) -> list[Table]:
        """What a run of a method measures. Raises BlipError where two tables have one name."""
        tables = [*self.kind_tables, COST, MEMORY, *METHODS[method].tables]
        names = [table.name for table in tables]
        if twice := [name for name in names if names.count(name) > 1]:
            raise BlipError(f"method {method}: tables: {twice[0]}: the name of another table, expected one of its own")
        return tables

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        """Everything that a run's numbers depend on, as plain values. Raises BlipError for an unknown method."""
        if method not in self.methods:
            raise BlipError(
                f"method {method}: not in {self.name} (it has {', '.join(self.methods)}); add it under methods"
            )
        return {
            **self.model_dump(mode="json", exclude={"methods", "about", "resources"}),
            "method": {
                "name": method,
                "version": METHODS[method].version,
                **self.methods[method].model_dump(mode="json"),
            },
            "seed": seed,
        }

    def defaults_of(self, method: str) -> dict[str, Any]:
        """The method's settings where nothing is said of them, as plain values; without those that have to be given."""
        fields = type(self.methods[method]).model_fields.items()
        return {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}

    @abstractmethod
    def inputs(self, seed: int, raw: Path, prepared: Path, device: torch.device) -> Inputs:
        """What the runs with a seed learn from, on the device; made from `raw` where it is missing in `prepared`."""

    @abstractmethod
    def largest_product(self, method: str, inputs: Any) -> int:
        """Multiplications in the largest linear layer of a training step."""

    @abstractmethod
    def build_network(self, method: str, inputs: Any) -> MultiHeadNetwork:
        """The network that a method is run on, initialised from torch's global generator."""

    @abstractmethod
    def build_trainer(self, inputs: Any, setup: Setup) -> Trainer:
        """What trains a run on its inputs."""

    def trainer(
        self, method: str, seed: int, inputs: Any, checkpoint: Checkpoint, device: torch.device, graphs: bool = True
    ) -> Trainer:
        """What trains a run of a method and seed on its `inputs`; `graphs`: see `Setup.cuda_graphs`."""
        torch.manual_seed(address(seed, "network"))
        network = self.build_network(method, inputs).to(device)
        built = METHODS[method](network, self.methods[method], seed)
        tables, tasks = self.tables_of(method), inputs.names
        return self.build_trainer(inputs, Setup(network, built, tables, tasks, seed, checkpoint, device, graphs))


def _settings(method: Any, values: Any) -> Schema:
    """The checked settings of a method, of which pydantic learns what is wrong and where."""
    if method not in METHODS:
        raise wrong(f"unknown method (known: {', '.join(METHODS)})", str(method))
    try:
        return METHODS[method].Settings.model_validate(values)
    except ValidationError as error:
        known = ", ".join(METHODS[method].Settings.model_fields) or "none"
        unknown = PydanticCustomError("unknown_key", f"unknown key (known: {known})")
        details: list[InitErrorDetails] = [
            {
                "type": unknown if problem["type"] == "extra_forbidden" else as_said(problem),
                "loc": (method, *problem["loc"]),
                "input": problem["input"],
            }
            for problem in error.errors()
        ]
        raise ValidationError.from_exception_data("methods", details) from None
