"""What a run folder holds: its tables with types and units, its record `run.json`, and where each of its files lies."""

import json
import numbers
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from blip.errors import BlipError
from blip.files import atomic_write, csv_text, read_bytes, sha256
from blip.schema import NAME, Schema, first_problem, validate

Row: TypeAlias = dict[str, Any]

RECORD = "run.json"
"""Written last: a folder that has it is complete."""
WEIGHTS = "weights.safetensors"
FROZEN_BITS, BOUND = "frozen_bits.", "bound."
"""Before the name of a weight in that file: how many bits of it are frozen (uint8), and its range's end (float64)."""
FORMAT: Literal[2] = 2
"""Of run folders; raised when an older folder cannot be read any more."""


class Column(Schema):
    """A column of a table."""

    type: Literal["int64", "float64", "str"]
    unit: str = ""


TYPES: dict[str, type] = {"int64": numbers.Integral, "float64": numbers.Real, "str": str}
NUMBER, TEXT = Column(type="float64"), Column(type="str")
INDEX, COUNT = Column(type="int64", unit="from 0"), Column(type="int64")
SHARE = Column(type="float64", unit="share in [0, 1]")
LOSS = Column(type="float64", unit="nats")
SECONDS = Column(type="float64", unit="seconds")


class Table(Schema):
    """A table in long form, a row per measurement. Who measures it declares it, once."""

    name: str = Field(pattern=NAME)
    about: str
    columns: dict[str, Column]

    @property
    def file(self) -> str:
        """Its name in a run folder."""
        return f"{self.name}.csv"

    def row(self, *values: float | int | str) -> Row:
        """The values of all columns, in their order."""
        return dict(zip(self.columns, values, strict=True))

    def checked(self, row: Row) -> Row:
        """The row itself. Raises BlipError where it has other columns, or a value of another type."""
        if row.keys() != self.columns.keys():
            raise BlipError(f"table {self.name}: expected {', '.join(self.columns)} in a row, found {', '.join(row)}")
        for name, value in row.items():
            kind = self.columns[name].type
            if not isinstance(value, TYPES[kind]) and not (kind == "float64" and value is None):  # an empty cell
                raise BlipError(f"table {self.name}: {name}: expected {kind}, found {value!r}")
        return row

    def to_csv(self, rows: Iterable[Row]) -> str:
        """The file's content."""
        return csv_text(rows, list(self.columns))


COST = Table(
    name="cost",
    about="Time that each phase of learning a task took.",
    columns={"task": INDEX, "phase": TEXT, "seconds": SECONDS},
)


MEMORY = Table(
    name="memory",
    about="What the method keeps beside the network between tasks.",
    columns={"task_learned": INDEX, "bytes": Column(type="int64", unit="bytes")},
)


class Score(Schema):
    """What an experiment measures of a task, and in which table and column it stands."""

    name: str = Field(pattern=NAME)
    """Such as accuracy; it becomes part of names of files."""
    table: str
    column: str
    chance: str | None = None
    """The table of what one gets by chance (columns `task` and the score's), where scores are no shares in [0, 1]. They
    are then shown as shares of the way from there to the best method's score."""
    task: str = "task"
    """What a task is called."""
    trained_in: str = "epochs"
    """What the length of a task's training is counted in."""


class Variant(Schema):
    """What is special of an experiment that is one of several, in which settings are varied."""

    of: str = Field(pattern=NAME)
    """Name of the experiment as it is without."""
    settings: dict[str, Any] = Field(min_length=1)
    """Value of each varied setting, by its dotted key."""

    @property
    def group(self) -> str:
        """Name of all that vary the same settings of the same experiment, such as `digits5.f_prior`."""
        return ".".join([self.of, *map(short_key, self.settings)])

    @property
    def name(self) -> str:
        """Of the experiment, such as `digits5.f_prior-1e-12`; a part of paths."""
        return ".".join([self.of, *(f"{short_key(key)}-{short_value(v)}" for key, v in self.settings.items())])


def short_key(key: str) -> str:
    """The last word of a dotted key, and its number: `f_prior` of `methods.blip.f_prior`, `hidden_0` of
    `network.hidden.0`."""
    parts = key.split(".")
    word = next((i for i, part in reversed(list(enumerate(parts))) if not part.isdecimal()), 0)
    return "_".join(parts[word:])


def short_value(value: Any) -> str:
    """A setting's value as a part of names: `1e-12`, `exact`, `4_3_2_1_0` of a list."""
    text = value if isinstance(value, str) else re.sub(r"e([+-])0*", r"e\1", json.dumps(value)).replace("+", "")
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all of a setting's values are numbers, which have an order and a place on an axis."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


class TaskRecord(Schema):
    """A task that was learned."""

    name: str
    outputs: PositiveInt
    """Classes, or actions."""
    trained: NonNegativeInt
    """How long, in `Score.trained_in`."""


class Numbers(Schema):
    """How many numbers a network has, weights and statistics of batch-norm."""

    shared: NonNegativeInt
    by_task: list[NonNegativeInt]
    """What each task adds, such as its head; only the first one where all share a head."""


class Provenance(Schema):
    """What made the numbers of a run."""

    commit: str
    versions: dict[str, str]
    """Of Python and of packages."""
    cpu: str
    gpu: str | None
    threads: PositiveInt
    products: str = "default"
    """The library of float32 matrix products on the CPU (`blip.training.products`)."""
    command: str
    started: str
    finished: str
    peak_memory_mb: NonNegativeFloat


class RunRecord(Schema):
    """`run.json`: everything there is to know of a run but its measurements and weights."""

    format: Literal[2]
    experiment: str = Field(pattern=NAME)
    method: str = Field(pattern=NAME)
    seed: NonNegativeInt
    stand_in: bool
    """Whether the data only stand in for the real ones."""
    score: Score
    tasks: list[TaskRecord] = Field(min_length=1)
    network: Numbers
    tables: list[Table]
    config: dict[str, Any]
    """What the numbers depend on."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """The method's settings where an experiment says nothing of them; older runs do not say."""
    key: str
    """Of configuration, data and package version: runs of equal keys have equal numbers."""
    data: str = ""
    """Checksum of the data; empty where there are none."""
    provenance: Provenance
    files: dict[Annotated[str, Field(pattern=NAME)], str]
    """The other files of the folder and their SHA-256."""

    @property
    def variant(self) -> Variant | None:
        """What is special of its experiment, where it is one of several in which settings are varied.

        Raises BlipError where `config` says something else.
        """
        return validate(Variant, self.config["variant"], "config.variant") if "variant" in self.config else None


def run_folder(out: Path, experiment: str, method: str, seed: int | str) -> Path:
    """Where the results of a run lie below `out`."""
    return out / experiment / method / f"seed{seed}"


def tuned_table(out: Path, experiment: str, method: str) -> Path:
    """Where it is said which of a method's settings were tried, and chosen."""
    return out / experiment / f"{method}.csv"


def run_files(tables: Iterable[Table], weights: bool = True) -> list[str]:
    """What a finished run folder holds, with or without the network's weights; the record is the last."""
    return [*([WEIGHTS] if weights else []), *(table.file for table in tables), RECORD]


def write_run(folder: Path, record: RunRecord, weights: bytes | None, tables: Mapping[str, list[Row]]) -> None:
    """Write a run folder; `files` of the record are those that are written here."""
    for name in (RECORD, WEIGHTS):  # those of an earlier run
        (folder / name).unlink(missing_ok=True)
    if weights is not None:
        atomic_write(folder / WEIGHTS, weights)
    for table in record.tables:
        atomic_write(folder / table.file, table.to_csv(tables[table.name]))
    names = run_files(record.tables, weights is not None)[:-1]
    complete = record.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    atomic_write(folder / RECORD, complete.model_dump_json(indent=1) + "\n")


def read_record(folder: Path) -> RunRecord:
    """The record of a run folder. Raises BlipError where it cannot be read or is of another format."""
    path = folder / RECORD
    try:
        values = json.loads(read_bytes(path))
        if isinstance(values, dict) and values.get("format", 1) != FORMAT:
            found = values.get("format", 1)
            raise BlipError(f"{path}: a run folder of format {found}, expected {FORMAT}: train it again")
        return RunRecord.model_validate(values)
    except ValidationError as error:
        raise BlipError(f"{path}: expected the record of a run: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise BlipError(f"{path}: expected the record of a run, in JSON: {error}") from None


def changed_files(folder: Path, record: RunRecord, expected: Iterable[str]) -> list[str]:
    """What is missing from a run folder, or is not as it was written; nothing where it is complete.

    Weights may be missing where they are not expected.
    """
    names = dict.fromkeys([*expected, *record.files])
    if WEIGHTS not in expected and not (folder / WEIGHTS).exists():
        names.pop(WEIGHTS, None)
    return unlike_written(folder, record, names)


def unlike_written(folder: Path, record: RunRecord, names: Iterable[str]) -> list[str]:
    """What of these files of a run folder is missing, or is not as it was written."""
    return [
        f"{name} is missing" if not (folder / name).is_file() else f"{name} was changed"
        for name in names
        if not (folder / name).is_file() or sha256(folder / name) != record.files.get(name)
    ]
