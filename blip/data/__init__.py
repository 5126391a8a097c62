"""Raw data to task sequences. No networks in here."""

from blip.data.description import DataConfig, SourceConfig
from blip.data.preparation import prepare_dataset, prepare_experiment
from blip.data.raw import is_present, needs_pickles
from blip.data.sequences import Examples, Task, TaskSequence, load_sequence
from blip.data.sources import SOURCES
from blip.data.splits import split_path
from blip.data.stand_in import write_stand_ins
from blip.data.storage import dataset_file, dataset_path

__all__ = [
    "SOURCES",
    "DataConfig",
    "Examples",
    "SourceConfig",
    "Task",
    "TaskSequence",
    "dataset_file",
    "dataset_path",
    "is_present",
    "load_sequence",
    "needs_pickles",
    "prepare_dataset",
    "prepare_experiment",
    "split_path",
    "write_stand_ins",
]
