"""What the workflow asks: which files a suite makes, from which, and by which arguments of the command line."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar

from blip.config import PlannedExperiment, Tuning, load_suite
from blip.data import SourceConfig, dataset_file, dataset_path, needs_pickles, split_path
from blip.data.miniimagenet import FILES, find_raw
from blip.errors import BlipError
from blip.record import run_files, run_folder, tuned_table

SETTINGS = (
    *("suite", "raw", "data", "results", "checkpoints"),
    *("device", "jobs_per_gpu", "threads", "products", "container"),
)
CHOICES = {
    "device": (r"auto|cpu|(cuda|mps|xpu)(:\d+)?", "auto, cpu, cuda or one such as cuda:1"),
    "products": ("auto|default|onednn", "auto, default or onednn"),
}
MOST_THREADS = 256
"""With more than a machine lets a process have, PyTorch ends in a segmentation fault."""
START_MINUTES = 5
"""Of every training job: Python and PyTorch can take minutes to load from a cluster's file system."""


@dataclass(frozen=True)
class Job:
    """One rule, of one or more methods on an experiment."""

    planned: PlannedExperiment
    methods: list[str]
    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Of the rule."""
        return "_".join([self.kind, *self._of]).replace("-", "_").replace(".", "_")

    @property
    def log(self) -> str:
        """Name of its log and its benchmark, in which there may be wildcards."""
        return f"{self.kind}/{'-'.join(self._of)}"

    @property
    def _of(self) -> list[str]:
        return [self.planned.experiment.name, *self.methods]


@dataclass(frozen=True)
class TrainingJob(Job):
    """The runs of a method on an experiment, of all its methods where runs are short; one job for each seed."""

    kind: ClassVar[str] = "train"

    @property
    def log(self) -> str:
        return super().log + "-seed{seed}"

    @property
    def _of(self) -> list[str]:
        return [self.planned.experiment.name] if self.planned.experiment.resources.short else super()._of

    def minutes(self) -> int:
        """That a job takes at most."""
        return START_MINUTES + self.planned.experiment.resources.minutes * len(self.methods)

    def run_configs(self, seed: int) -> str:
        """What the numbers of a job's runs depend on."""
        return "\n".join(json.dumps(self.planned.experiment.run_config(method, seed)) for method in self.methods)


@dataclass(frozen=True)
class TuningJob(Job):
    """The choice of a method's settings on an experiment."""

    asked: Tuning
    kind: ClassVar[str] = "tune"

    @property
    def method(self) -> str:
        """The one whose settings are chosen."""
        return self.methods[0]

    def minutes(self) -> int:
        """That the job takes at most."""
        trials = prod(map(len, self.asked.grids[self.method].values())) * len(self.asked.seeds)
        return START_MINUTES + self.planned.experiment.resources.minutes * trials

    def arguments(self) -> list[str]:
        """Of `blip tune`."""
        grid = [f"{key}={json.dumps(values)[1:-1]}" for key, values in self.asked.grids[self.method].items()]
        seeds = map(str, self.asked.seeds)
        limits = ["--tasks", str(self.asked.tasks), "--validation", str(self.asked.validation)]
        tried = self.planned.model_copy(update={"overrides": self.planned.overrides | self.asked.set})
        return [*experiment_arguments(tried), "--method", self.method, "--grid", *grid, "--seed", *seeds, *limits]

    def run_config(self) -> str:
        """What the numbers depend on beside the arguments."""
        return json.dumps(self.planned.experiment.run_config(self.method, 0))


class Plan:
    """The jobs of one suite. Raises BlipError for a setting or a suite that is wrong."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        check_settings(settings)
        self.raw, self.prepared = (Path(settings[key]).expanduser() for key in ("raw", "data"))
        self.suite, self.experiments = load_suite(Path(settings["suite"]).expanduser(), self.raw)
        if not self.experiments:
            raise BlipError(f"{settings['suite']}: {self.raw} has the data of none of its experiments")
        self.out = str(Path(settings["results"]).expanduser() / self.suite)
        self.checkpoints = str(Path(settings.get("checkpoints") or f"{self.out}/checkpoints").expanduser())
        rules = Counter(job.name for job in [*self.training, *self.tuning])
        if twice := [name for name, jobs in rules.items() if jobs > 1]:
            raise BlipError(f"{settings['suite']}: experiments: two have the rule {twice[0]}: expected other names")

    @cached_property
    def training(self) -> list[TrainingJob]:
        """The training rules."""
        return [
            TrainingJob(planned, methods)
            for planned in self.experiments.values()
            for methods in ([planned.methods] if planned.experiment.resources.short else [[m] for m in planned.methods])
        ]

    @cached_property
    def tuning(self) -> list[TuningJob]:
        """The rules that choose settings, where the suite says `tune`."""
        return [
            TuningJob(planned, [method], planned.tune)
            for planned in self.experiments.values()
            if planned.tune
            for method in planned.tune.grids
        ]

    def log(self, job: str) -> str:
        """Of a job by this name, in which there may be wildcards."""
        return self.output(f"logs/{job}.log")

    def benchmark(self, job: str) -> str:
        """What Snakemake measures of a job by this name, in which there may be wildcards."""
        return self.output(f"benchmarks/{job}.tsv")

    def output(self, name: str) -> str:
        """A file or folder of the results, by its name there, such as `tables`; there may be wildcards in it."""
        return f"{self.out}/{name}"

    def tuned(self, job: TuningJob) -> str:
        """What was tried and chosen."""
        return str(tuned_table(Path(self.output("tuned")), job.planned.experiment.name, job.method))

    def outputs(self, job: TrainingJob) -> list[str]:
        """The files of a job's runs, the seed a wildcard."""
        return [file for method in job.methods for file in self._run(job.planned, method, "{seed}")]

    def done(self, job: TrainingJob) -> str:
        """An empty file that says that the job did not fail, the seed a wildcard."""
        return self.output(f"done/{job.log}")

    def all_done(self) -> list[str]:
        """Of all jobs and seeds."""
        return [self.done(job).format(seed=seed) for job in self.training for seed in job.planned.seeds]

    @cached_property
    def drawn(self) -> dict[str, set[str]]:
        """What there are figures of, experiments and groups of variants, and the experiments whose runs they show."""
        variants = Counter(planned.experiment.group for planned in self.experiments.values())
        drawn: dict[str, set[str]] = {}
        for name, planned in self.experiments.items():
            group = planned.experiment.group if variants[planned.experiment.group] > 1 else name
            drawn.setdefault(group, set()).add(name)
            if planned.experiment.variant:
                drawn[group].add(planned.experiment.variant.of)
        return drawn

    def results(self, drawn: str | None = None, *, playable: bool = False) -> list[str]:
        """The files of all runs, of those that one of `drawn` needs, or of those that can be played again."""
        return [
            file
            for name, planned in self.experiments.items()
            if (drawn is None or name in self.drawn[drawn]) and (planned.experiment.playable or not playable)
            for method in planned.methods
            for seed in planned.seeds
            for file in self._run(planned, method, seed)
        ]

    def _run(self, planned: PlannedExperiment, method: str, seed: Any) -> list[str]:
        folder = run_folder(Path(self.out, "runs"), planned.experiment.name, method, seed)
        return [str(folder / file) for file in run_files(planned.experiment.tables_of(method), planned.weights)]

    @cached_property
    def datasets(self) -> dict[str, tuple[PlannedExperiment, SourceConfig]]:
        """Each data set file's name, an experiment that uses it, and its source there."""
        plans = list(self.experiments.values())
        # The first of variants where nothing else uses it, so that a further value leaves the data set's rule alone.
        variants = [planned for planned in reversed(plans) if planned.experiment.variant]
        return {
            dataset_path(self.prepared, source).stem: (planned, source)
            for planned in [*variants, *(planned for planned in plans if not planned.experiment.variant)]
            for source in planned.experiment.sources
        }

    def dataset_files(self, planned: PlannedExperiment) -> list[str]:
        """The data set files of an experiment."""
        return [str(dataset_path(self.prepared, source)) for source in planned.experiment.sources]

    def split_files(self, planned: PlannedExperiment) -> list[str]:
        """The split file of an experiment, where it has data, the seed a wildcard.

        None where runs are short: they make their splits themselves, for less than the start of another process.
        """
        experiment = planned.experiment
        if experiment.resources.short or not experiment.sources:
            return []
        return [self.split_file(experiment.split_name, "{seed}")]

    @cached_property
    def splits(self) -> dict[str, PlannedExperiment]:
        """By the name of each split an experiment that uses it."""
        return {planned.experiment.split_name: planned for planned in reversed(self.experiments.values())}

    def split_file(self, name: str, seed: Any) -> str:
        """One of `splits`; both may be wildcards."""
        return str(split_path(self.prepared, name, seed))

    def dataset_file(self, dataset: str) -> str:
        """Of a name in `datasets`, or of a wildcard."""
        return str(dataset_file(self.prepared, dataset))

    def raw_images(self) -> list[str]:
        """Of mini-ImageNet, where they are there."""
        path = find_raw(self.raw)
        return [str(path)] if path else []

    def pickles(self, dataset: str) -> list[str]:
        """What of mini-ImageNet must be made before a data set."""
        return self.pickle_files() if needs_pickles(self.datasets[dataset][1], self.raw) else []

    def pickle_files(self) -> list[str]:
        """Of mini-ImageNet."""
        return [str(self.prepared / "miniimagenet" / name) for name in FILES]

    def has_pickles(self) -> bool:
        """Whether those of mini-ImageNet are complete."""
        return all(Path(file).is_file() for file in self.pickle_files())

    def raw_counts(self) -> list[str]:
        """What mini-ImageNet's raw images are expected to be, as command-line arguments."""
        if "miniimagenet" not in self.datasets:
            return []
        source = self.datasets["miniimagenet"][1]
        counts = {"--classes": source.raw_classes, "--images": source.raw_images_per_class}
        return [text for option, count in counts.items() if count for text in (option, str(count))]

    def bind(self, environment: Mapping[str, str]) -> str:
        """Folders that a container must be shown besides the working directory, as a value of APPTAINER_BIND."""
        before = environment.get("APPTAINER_BIND", "").split(",")
        experiments = [planned.path.parent for planned in self.experiments.values()]
        sources = [source for planned in self.experiments.values() for source in planned.experiment.sources]
        images = [self.raw / source.folder for source in sources if source.folder]
        needed = [self.raw, *images, self.prepared, Path(self.out).parent, Path(self.checkpoints), *experiments]
        folders = not_below(Path.cwd(), needed)
        return ",".join(filter(None, dict.fromkeys([*before, *folders])))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise BlipError where a setting of the workflow is unknown, or what no job would take."""
    if unknown := set(settings) - set(SETTINGS):
        known = ", ".join(sorted(SETTINGS))
        raise BlipError(f"config/config.yaml or --config: unknown key {min(unknown)} (known: {known})")
    if missing := set(SETTINGS) - set(settings) - {"checkpoints"}:
        raise BlipError(f"config/config.yaml: {min(missing)} is missing")
    for key, value in settings.items():
        empty = value in (None, "") and key in ("checkpoints", "container")
        if key not in ("threads", "jobs_per_gpu") and not empty and not _is_plain(value):
            raise BlipError(f"config: {key}: expected a text without braces, quotes and line breaks, found {value!r}")
    for key, meaning in {"threads": "CPU threads", "jobs_per_gpu": "jobs"}.items():
        if not str(settings[key]).isdecimal() or int(settings[key]) < 1:
            raise BlipError(f"config: {key}: expected a number of {meaning}, found {settings[key]!r}")
    if int(settings["threads"]) > MOST_THREADS:
        raise BlipError(f"config: threads: expected at most {MOST_THREADS}, found {settings['threads']!r}")
    for key, (pattern, expected) in CHOICES.items():
        if not re.fullmatch(pattern, settings[key]):
            raise BlipError(f"config: {key}: expected {expected}, found {settings[key]!r}")


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a path or a command of a rule, where braces are wildcards."""
    return isinstance(value, str) and value != "" and value.isprintable() and not set(value) & set("{}\"'*")


def experiment_arguments(planned: PlannedExperiment) -> list[str]:
    """An experiment and the suite's changes to it, as command-line arguments."""
    arguments = [str(planned.path)]
    for option, values in {"--set": planned.overrides, "--vary": planned.varied}.items():
        arguments += [option, *(f"{key}={json.dumps(value)}" for key, value in values.items())] if values else []
    return arguments


def not_below(folder: Path, paths: Iterable[Path]) -> list[str]:
    """Of these paths those that are not below the folder, as far up as they exist."""
    there = [
        next(p for p in (path, *path.parents) if p.exists())
        for path in map(Path, map(os.path.abspath, paths))
        if not path.is_relative_to(folder)
    ]
    return [str(path) for path in dict.fromkeys(there) if path != Path("/")]


def parent(path: str | Path, levels: int = 1) -> str:
    """The folder so many levels above a file."""
    return str(Path(path).parents[levels - 1])


def folders_of(files: Iterable[str]) -> list[str]:
    """The folders that these files are in, each once and in their order."""
    return list(dict.fromkeys(map(parent, files)))
