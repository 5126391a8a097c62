"""Classification: a task sequence of images, a network, and a schedule."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from blip.data import DataConfig, SourceConfig, TaskSequence, load_sequence, prepare_experiment
from blip.errors import BlipError
from blip.experiment import Experiment
from blip.networks import AnyNetworkConfig, NetworkConfig, largest_product
from blip.record import COUNT, INDEX, LOSS, NUMBER, SHARE, Score, Table
from blip.schema import Schema, wrong

if TYPE_CHECKING:
    from blip.images.image_trainer import ImageTrainer
    from blip.training.checkpoint import Checkpoint

ACCURACY = Table(
    name="accuracy",
    about="Accuracy and loss on the test images of each task so far, after learning a task.",
    columns={"task_learned": INDEX, "task": INDEX, "accuracy": SHARE, "loss": LOSS, "n": COUNT},
)
HISTORY = Table(
    name="history",
    about="Each epoch of training, and its validation.",
    columns={
        "task": INDEX,
        "epoch": INDEX,
        "lr": NUMBER,
        "train_loss": LOSS,
        "valid_loss": LOSS,
        "valid_accuracy": SHARE,
    },
)


class TrainingConfig(Schema):
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
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the shared features in training and evaluation; weights, heads, penalties and Fisher information are float32
    always. `tf32` is of products and convolutions on a GPU, and float32 elsewhere."""


class _OneNetwork(Schema):
    network: NetworkConfig


class ImageExperiment(Experiment):
    """Classification of images, a head for each task."""

    key: ClassVar[str] = "data"
    score: ClassVar[Score] = Score(name="accuracy", table=ACCURACY.name, column="accuracy")
    kind_tables: ClassVar[tuple[Table, ...]] = (ACCURACY, HISTORY)

    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    network_changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of the network that are different for a method."""

    @model_validator(mode="after")
    def _changes_fit(self) -> "ImageExperiment":
        for method in self.network_changes:
            if method not in self.methods:
                raise wrong("not among the methods", "network_changes", method)
            self.network_of(method)
        return self

    @property
    def sources(self) -> list[SourceConfig]:
        return self.data.sources

    def network_of(self, method: str) -> AnyNetworkConfig:
        """The network that a method is run on."""
        changes = self.network_changes.get(method)
        if not changes:
            return self.network
        return _OneNetwork.model_validate({"network": self.network.model_dump() | changes}).network

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        config = super().run_config(method, seed)
        del config["network_changes"]
        return config | {"network": self.network_of(method).model_dump(mode="json")}

    @property
    def tf32(self) -> bool:
        return self.training.precision == "tf32"

    def largest_product(self, method: str, inputs: TaskSequence) -> int:
        return largest_product(self.network_of(method), inputs.image_shape, self.training.batch_size)

    def inputs(self, seed: int, raw: Path, prepared: Path, device: torch.device) -> TaskSequence:
        sequence = load_sequence(prepare_experiment(self.name, self.data, seed, raw, prepared), prepared, device)
        if sequence.stand_ins and not self.stand_in:
            raise BlipError(
                f"{prepared / sequence.stand_ins[0]}: made of generated images: delete it and prepare the real data, "
                f"or say stand_in: true in the experiment {self.name}"
            )
        return sequence

    def trainer(
        self,
        method: str,
        seed: int,
        inputs: TaskSequence,
        checkpoint: "Checkpoint",
        device: torch.device,
        cuda_graphs: bool = True,
    ) -> "ImageTrainer":
        from blip.images.image_trainer import ImageTrainer

        return ImageTrainer(self, method, seed, inputs, checkpoint, device, cuda_graphs=cuda_graphs)
