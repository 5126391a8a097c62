"""Raw data to task sequences. No networks in here."""

from blip.data.sequences import (
    Examples,
    Task,
    TaskSequence,
    dataset_path,
    load_sequence,
    prepare_dataset,
    prepare_experiment,
)
from blip.data.settings import DataConfig, SourceConfig
from blip.data.sources import SOURCES, is_present

__all__ = [
    "SOURCES",
    "DataConfig",
    "Examples",
    "SourceConfig",
    "Task",
    "TaskSequence",
    "dataset_path",
    "is_present",
    "load_sequence",
    "prepare_dataset",
    "prepare_experiment",
]
