"""Classification: a task sequence of images, a network, and a schedule."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError, model_validator

from blip.data import DataConfig, SourceConfig, TaskSequence, load_sequence, prepare_experiment
from blip.errors import BlipError
from blip.experiment import Experiment
from blip.images.image_trainer import ACCURACY, HISTORY, ImageTrainer, TrainingConfig
from blip.networks import AnyNetworkConfig, MultiHeadNetwork, NetworkConfig, build_network, largest_product
from blip.record import Score, Table
from blip.schema import Schema, moved, wrong
from blip.training.loop import Setup

BATCH_NORM_VERSION = 3
"""Of networks whose predictions depend on their batch: from 2 on they are tested in batches of mixed classes; from 3 on
BLIP's Fisher information is of batches of a configured size, and no batch of any method is of one example."""


class _Parts(Schema):
    """What may be different for a method."""

    network: NetworkConfig
    training: TrainingConfig


class ImageExperiment(Experiment):
    """Classification of images."""

    key: ClassVar[str] = "data"
    score: ClassVar[Score] = Score(name="accuracy", table=ACCURACY.name, column="accuracy")
    kind_tables: ClassVar[tuple[Table, ...]] = (ACCURACY, HISTORY)

    data: DataConfig
    network: NetworkConfig
    heads: Literal["separate", "shared"] = "separate"
    """One for each task, which must then be known in testing, or one for all: class k of each task is its output k."""
    training: TrainingConfig
    network_changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of the network that are different for a method."""
    training_changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of the training that are different for a method."""

    @model_validator(mode="after")
    def _changes_fit(self) -> "ImageExperiment":
        for key in ("network_changes", "training_changes"):
            for method in getattr(self, key):
                if method not in self.methods:
                    raise wrong("not among the methods", key, method)
                self._check_changes(method)
        return self

    def _check_changes(self, method: str) -> None:
        try:
            self._parts_of(method)
        except ValidationError as error:  # in "network" or "training", which are right without the changes
            raise moved(error, lambda key: (f"{key[0]}_changes", method, *key[1:])) from None

    @property
    def sources(self) -> list[SourceConfig]:
        return self.data.sources

    def trial(self, tasks: int, validation: float) -> dict[str, Any]:
        return {"data.validation": self.data.validation or validation, "data.trial_tasks": tasks}

    def _parts_of(self, method: str) -> _Parts:
        network = self.network.model_dump() | self.network_changes.get(method, {})
        training = self.training.model_dump() | self.training_changes.get(method, {})
        return _Parts.model_validate({"network": network, "training": training})

    def network_of(self, method: str) -> AnyNetworkConfig:
        """The network that a method is run on."""
        return self._parts_of(method).network

    def training_of(self, method: str) -> TrainingConfig:
        """How a method is trained."""
        return self._parts_of(method).training

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        config = super().run_config(method, seed)
        del config["network_changes"], config["training_changes"]
        for source in config["data"]["sources"]:  # no absolute path is recorded: the data are known by their checksum
            if source["folder"] and Path(source["folder"]).is_absolute():
                source["folder"] = Path(source["folder"]).name
        parts = self._parts_of(method).model_dump(mode="json")
        versions = {"batch_norm_version": BATCH_NORM_VERSION} if parts["network"].get("batch_norm") else {}
        return config | parts | versions

    def tf32(self, method: str) -> bool:
        return self.training_of(method).precision == "tf32"

    def largest_product(self, method: str, inputs: TaskSequence) -> int:
        parts = self._parts_of(method)
        return largest_product(parts.network, inputs.image_shape, parts.training.batch_size)

    def inputs(self, seed: int, raw: Path, prepared: Path, device: torch.device) -> TaskSequence:
        sequence = load_sequence(prepare_experiment(self.split_name, self.data, seed, raw, prepared), prepared, device)
        if sequence.stand_ins and not self.stand_in:
            raise BlipError(
                f"{prepared / sequence.stand_ins[0]}: made of generated images: delete it and prepare the real data, "
                f"or say stand_in: true in the experiment {self.name}"
            )
        return sequence

    def build_network(self, method: str, inputs: TaskSequence) -> MultiHeadNetwork:
        one_head = self.heads == "shared"
        return build_network(self.network_of(method), inputs.image_shape, inputs.outputs, one_head=one_head)

    def build_trainer(self, inputs: TaskSequence, setup: Setup) -> ImageTrainer:
        return ImageTrainer(self.training_of(setup.method.name), inputs, setup)
