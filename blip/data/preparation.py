"""Raw data to data sets (every image of a source, once) and splits (which images make which task)."""

from pathlib import Path

from blip.data.dataset import DatasetRecord
from blip.data.description import DataConfig, SourceConfig
from blip.data.raw import is_stand_in, raw_identity, read_source
from blip.data.splits import Split, make_split, split_path
from blip.data.storage import dataset_path, read_dataset, write_dataset
from blip.errors import BlipError
from blip.files import atomic_write, read_bytes


def prepare_dataset(source: SourceConfig, raw: Path, prepared: Path) -> Path:
    """Read a raw source and write its data set file below `prepared`."""
    data = read_source(source, raw, prepared)
    path = dataset_path(prepared, source)
    record = DatasetRecord(
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        folder=source.folder_name,
        stand_in=is_stand_in(source, raw, prepared),
        raw=raw_identity(source, raw),
    )
    write_dataset(path, data.tensors(), record)
    return path


def prepare_experiment(name: str, config: DataConfig, seed: int, raw: Path, prepared: Path) -> Split:
    """Make what is missing of an experiment's data sets and split below `prepared`; returns the split.

    A data set file that is there is taken if it is as it was written, and of the raw files, if those are there. The
    split is always made anew, which takes no time, and written (`split_path`) only where it changed, so that nothing
    that depends on it is older than it for no reason. The file may be another process's soon, of the same experiment
    with another setting: what was made here is handed over, not its path.
    """
    for source in config.sources:
        if dataset_path(prepared, source).exists():
            _check_raw(source, raw, prepared)
        else:
            prepare_dataset(source, raw, prepared)
    path, split = split_path(prepared, name, seed), make_split(config, seed, prepared)
    content = split.to_bytes()
    if not path.exists() or read_bytes(path) != content:
        atomic_write(path, content)
    return split


def _check_raw(source: SourceConfig, raw: Path, prepared: Path) -> None:
    """Raise BlipError where a data set was made of other raw files than those that are there; there may be none."""
    path = dataset_path(prepared, source)
    _, record = read_dataset(path)
    there, images = raw_identity(source, raw), raw / (source.folder or "")
    if None not in (there, record.raw) and record.folder == source.folder_name and there != record.raw:
        raise BlipError(
            f"{path}: made of other raw files ({record.raw}) than those in {images} now ({there}): "
            "delete it and prepare the data again, or give the --raw that it was made of"
        )
