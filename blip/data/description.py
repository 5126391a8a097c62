"""How an experiment's data are described."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from blip.data.sources import SOURCES
from blip.schema import NAME, Fraction, Schema, later

Side = Annotated[int, Field(ge=1, le=10_000)]


def _possible(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot have a NUL")
    return path


class SourceConfig(Schema):
    """A data set and how it is cut into tasks: into groups of classes, or whole, or whole under permutations."""

    name: str = Field(pattern=NAME)
    """A built-in source, or any name where `folder` is given."""
    folder: Annotated[Path, AfterValidator(_possible)] | None = None
    """Class folders of images, <raw>/<folder>/{train,test}/<class>/…"""
    side: Side | None = None
    """Images of `folder` are resized to side × side pixels."""
    channels: Literal[1, 3] | None = None
    """3 for colour, 1 for grey. Images of `folder` are read so (3 where left out); grey ones of a built-in source are
    repeated to 3 channels."""
    pad_to: Side | None = None
    """Smaller images get a black margin, to this side."""
    mean: list[Fraction] | None = None
    std: list[PositiveFloat] | None = None
    """Of each channel of the images as the network gets them, scaled to [0, 1]; the source's own where left out."""
    classes_per_task: PositiveInt | None = None
    permutations: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """So many tasks, each with all classes and the pixels in an order of its own."""
    raw_classes: PositiveInt | None = None
    raw_images_per_class: PositiveInt | None = None
    """What the raw images of miniimagenet are expected to be; 100 and 600 where left out."""

    def of_file(self) -> str:
        """What of these settings the file of the data set depends on."""
        return self.model_dump_json(include={"name", "folder", "side", "raw_classes", "raw_images_per_class"})

    @property
    def reads_raw(self) -> bool:
        """Whether it is read from a folder of raw data: digits come with a library."""
        return self.folder is not None or self.name != "digits"

    @property
    def folder_name(self) -> str | None:
        """`folder` as a text."""
        return None if self.folder is None else str(self.folder)

    @model_validator(mode="after")
    def _complete(self) -> "SourceConfig":
        if self.folder is None and self.name not in SOURCES:
            raise ValueError(f"expected a built-in source ({', '.join(SOURCES)}) or a folder of images")
        if self.folder is None and self.side is not None:
            raise ValueError("side is for a folder of images; pad_to makes a built-in source's images larger")
        if self.folder is not None and self.side is None:
            raise ValueError("a folder of images needs side, the pixels to resize them to")
        if self.folder is None and self.channels == 1 and SOURCES[self.name].channels == 3:
            raise ValueError(f"{self.name} is in colour: channels cannot be 1")
        if self.permutations and self.classes_per_task:
            raise ValueError("either classes_per_task or permutations, not both")
        if (self.raw_classes or self.raw_images_per_class) and self.name != "miniimagenet":
            raise ValueError("raw_classes and raw_images_per_class are for miniimagenet alone")
        channels = self.channels or (3 if self.folder is not None else SOURCES[self.name].channels)
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, channels):
                raise ValueError(f"{key}: expected one number, or one for each of {channels} channels")
        return self


class DataConfig(Schema):
    """The task sequence of an experiment."""

    sources: list[SourceConfig] = Field(min_length=1)
    shuffle_tasks: bool = False
    task_order: list[NonNegativeInt] | None = later(None)
    """The tasks' places in the sequence as it would be without: [4, 3, 2, 1, 0] turns it round, whatever the seed."""
    shuffle_classes: bool = False
    validation: float = Field(default=0, ge=0, lt=1)
    """Share of the training images held out to steer the learning rate; 0: the training images themselves."""
    trial_tasks: PositiveInt | None = later(None)
    """To choose settings by (`blip tune`): so many first tasks alone, tested on their validation images."""

    @model_validator(mode="after")
    def _can_be_tried(self) -> "DataConfig":
        if self.trial_tasks and not self.validation:
            raise ValueError("trial_tasks are tested on validation images: expected validation above 0")
        return self

    @model_validator(mode="after")
    def _has_one_order(self) -> "DataConfig":
        if self.task_order is not None and self.shuffle_tasks:
            raise ValueError("either task_order or shuffle_tasks, not both")
        if self.task_order is not None and sorted(self.task_order) != list(range(len(self.task_order))):
            raise ValueError("task_order: expected each of 0, 1, 2, … once")
        return self
