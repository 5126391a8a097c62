"""How an experiment's data are described."""

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from blip.data.sources import SOURCES
from blip.settings import NAME, Settings


class SourceConfig(Settings):
    """A data set and how it is cut into tasks: into groups of classes, or whole, or whole under permutations."""

    name: str = Field(pattern=NAME)
    """A built-in source, or any name where `folder` is given."""
    folder: Path | None = None
    """Class folders of images, <raw>/<folder>/{train,test}/<class>/…"""
    side: PositiveInt | None = None
    """Images of `folder` are resized to side × side pixels."""
    channels: int = Field(default=3, ge=1, le=3)
    """Of the images of `folder`: 3 for colour, 1 for grey."""
    classes_per_task: PositiveInt | None = None
    permutations: PositiveInt | None = None
    """So many tasks, each with all classes and the pixels in an order of its own."""

    @model_validator(mode="after")
    def _complete(self) -> "SourceConfig":
        if self.folder is None and self.name not in SOURCES:
            raise ValueError(f"expected a built-in source ({', '.join(SOURCES)}) or a folder of images")
        if self.folder is not None and self.side is None:
            raise ValueError("a folder of images needs side, the pixels to resize them to")
        if self.channels == 2:
            raise ValueError("channels must be 1 or 3")
        if self.permutations and self.classes_per_task:
            raise ValueError("either classes_per_task or permutations, not both")
        return self


class DataConfig(Settings):
    """The task sequence of an experiment."""

    sources: list[SourceConfig] = Field(min_length=1)
    shuffle_tasks: bool = False
    shuffle_classes: bool = False
    validation: float = Field(default=0, ge=0, lt=1)
    """Share of the training images held out to steer the learning rate; 0: the training images themselves."""
