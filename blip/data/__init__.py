"""Raw data to task sequences. No networks in here."""

from blip.data.sequences import Examples, Task, TaskSequence, load_sequence, prepare_experiment
from blip.data.settings import DataConfig, SourceConfig
from blip.data.sources import SOURCES, is_present

__all__ = [
    "SOURCES",
    "DataConfig",
    "Examples",
    "SourceConfig",
    "Task",
    "TaskSequence",
    "is_present",
    "load_sequence",
    "prepare_experiment",
]
