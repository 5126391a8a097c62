"""A results folder as an RO-Crate: what was run, by what, on what, from what, as files with checksums that others read.

Where the workflow made the folder it is a Workflow Run RO-Crate, otherwise a Process Run Crate (both 0.5, of RO-Crate
1.1): researchobject.org/workflow-run-crate.
"""

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from blip.errors import BlipError
from blip.files import atomic_folder, sha256
from blip.record import RECORD, WEIGHTS, RunRecord, changed_files
from blip.results.loading import load_runs
from blip.results.needed import needed
from blip.source import REPOSITORY, commit_of, git

PROCESS, WORKFLOW = "https://w3id.org/ro/wfrun/process/0.5", "https://w3id.org/ro/wfrun/workflow/0.5"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
TERMS = {name: f"https://w3id.org/ro/terms/workflow-run#{name}" for name in ("sha256", "resourceUsage")}
"""What RO-Crate 1.1 has no words for."""
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
COMPLETED = "http://schema.org/CompletedActionStatus"
HOMES = {
    "blip-continual": "https://arxiv.org/abs/2105.04444",
    "python": "https://www.python.org",
    "torch": "https://pytorch.org",
    "numpy": "https://numpy.org",
    "safetensors": "https://github.com/huggingface/safetensors",
    "ale-py": "https://github.com/Farama-Foundation/Arcade-Learning-Environment",
    "gymnasium": "https://gymnasium.farama.org",
    "stable-baselines3": "https://stable-baselines3.readthedocs.io",
}
"""Of software that runs name."""
SHOWN = ("index.html", "tables", "figures", "games", "claims")
"""What of a results folder comes along beside its runs."""
RECIPE = ("Snakefile", "workflow", "config")
"""The workflow and its configuration, in a clone of the repository."""
TYPES = {
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}


def write_crate(results: Path, out: Path, *, author: str | None = None, weights: bool = False) -> Path:
    """Write the RO-Crate of a results folder to `out`, a folder that there is not yet, or an empty one.

    `author` is who ran it. Networks' weights come along only where asked: the rest is small. The same results give the
    same bytes. Raises BlipError where there is no finished run, one is not as it was written, or is there twice, `out`
    holds something, or the package that writes it is missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BlipError(f"{out}: expected a folder that is not there yet, or is empty")
    loaded = load_runs([results])
    records = {folder: loaded.records[key] for key, folder in loaded.folders.items()}
    for folder, record in records.items() if weights else ():
        if changed := changed_files(folder, record, []):
            raise BlipError(f"{folder}: {', '.join(changed)}")
    with atomic_folder(out) as made:
        _Crate(results, records, author, weights).write(made)
    return out


class _Crate:
    """A crate while it is put together."""

    def __init__(self, results: Path, runs: dict[Path, RunRecord], author: str | None, weights: bool) -> None:
        self.results, self.runs, self.weights = results, runs, weights
        self.made = [record.provenance for record in runs.values()]
        self.by_workflow = any((results / "benchmarks").glob("*")) and (REPOSITORY / "workflow/Snakefile").is_file()
        self.crate: Any = needed("rocrate.rocrate").ROCrate(version="1.1")
        self.context: Any = needed("rocrate.model").ContextEntity
        self.author: Any = self._thing("#author", "Person", name=author) if author else None
        self.configurations: dict[tuple[str, str, int], Any] = {}
        """Of each run, by experiment, method and seed."""

    def write(self, folder: Path) -> None:
        """Add everything, and write it."""
        self._describe()
        with tempfile.TemporaryDirectory() as made_here:
            self._configure(Path(made_here))
            (Path(made_here) / "README.md").write_text(self._readme())
            self._file(Path(made_here) / "README.md", "README.md", about=self.crate.root_dataset)
            actions = [self._run(path, record) for path, record in self.runs.items()]
            shown = [self._file(path, path.relative_to(self.results).as_posix()) for path in self._shown()]
            if self.by_workflow:
                actions.append(self._workflow_run(shown))
            for action in actions if self.author else []:
                action["agent"] = self.author
            self.crate.root_dataset["mentions"] = actions
            self.crate.write(folder)

    def _describe(self) -> None:
        experiments = sorted({record.experiment for record in self.runs.values()})
        root = self.crate.root_dataset
        root["name"] = f"Results of {', '.join(experiments)}"
        root["description"] = (
            f"{len(self.runs)} runs of continual learning: measurements, tables and figures, the settings that they "
            "come from, and what they were run by and on."
        )
        root["datePublished"] = max(made.finished for made in self.made)
        root["license"] = self._thing("https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License")
        profiles = {PROCESS: ("Process Run Crate", "0.5")}
        if self.by_workflow:
            profiles |= {WORKFLOW: ("Workflow Run Crate", "0.5"), WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0")}
        root["conformsTo"] = [
            self._thing(address, "CreativeWork", name=name, version=version)
            for address, (name, version) in profiles.items()
        ]
        if self.author:
            root["author"] = self.author
        self.crate.metadata.extra_terms.update(TERMS)

    def _readme(self) -> str:
        root = self.crate.root_dataset
        return (
            f"# {root['name']}\n\n{root['description']}\n\n"
            "`ro-crate-metadata.json` says what each file is and which run made it, with its command, software, "
            "hardware and times. `runs/` holds what was measured, `configuration/` the settings it depends on.\n"
        )

    def _thing(self, identifier: str, kind: str, /, **properties: Any) -> Any:
        """What the crate speaks of and is no file; each once."""
        return self.crate.get(identifier) or self.crate.add(
            self.context(self.crate, identifier, properties={"@type": kind, **properties})
        )

    def _file(self, path: Path, place: str, **properties: Any) -> Any:
        kind = TYPES.get(path.suffix, "text/plain")
        about = {"name": path.name, "sha256": sha256(path), "contentSize": path.stat().st_size, "encodingFormat": kind}
        return self.crate.add_file(path, place, properties=about | properties)

    def _shown(self) -> list[Path]:
        """Tables, figures and pages."""
        found = [path for name in SHOWN for path in (self.results / name).rglob("*") if path.is_file()]
        found += [path for name in SHOWN if (path := self.results / name).is_file()]
        return sorted(path for path in found if not path.name.startswith("."))

    def _configure(self, folder: Path) -> None:
        """The settings of each experiment and method, without the seed, as files; those of a seed where they differ."""
        known: dict[tuple[str, str, str], Any] = {}
        for record in self.runs.values():
            settings = {key: value for key, value in record.config.items() if key != "seed"}
            text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            what = (record.experiment, record.method, text)
            if what not in known:
                first = all(other[:2] != what[:2] for other in known)
                name = record.method if first else f"{record.method}-seed{record.seed}"
                place = f"configuration/{record.experiment}/{name}.json"
                path = folder / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                about = f"What all numbers of {record.method} on {record.experiment} depend on but the seed."
                known[what] = self._file(path, place, description=about)
            self.configurations[record.experiment, record.method, record.seed] = known[what]

    def _run(self, folder: Path, record: RunRecord) -> Any:
        """The action of a run: from its settings and data, by the software of that time, to its measurements."""
        place = f"runs/{record.experiment}/{record.method}/seed{record.seed}"
        about = {table.file: table.about for table in record.tables}
        measured = [
            self._file(folder / name, f"{place}/{name}", **({"description": about[name]} if name in about else {}))
            for name in [RECORD, *record.files]
            if (folder / name).is_file() and (self.weights or name != WEIGHTS)
        ]
        seed = self._thing(f"#seed-{record.seed}", "PropertyValue", name="seed", value=str(record.seed))
        inputs = [self.configurations[record.experiment, record.method, record.seed], seed]
        made, run = record.provenance, f"{record.experiment}-{record.method}-seed{record.seed}"
        action = self._thing(
            f"#{run}", "CreateAction", name=f"{record.method} on {record.experiment}, seed {record.seed}"
        )
        action["description"] = made.command
        action["instrument"] = self._software(record)
        action["object"] = inputs + ([self._data(record)] if record.data else [])
        action["result"] = measured
        action["startTime"], action["endTime"] = made.started, made.finished
        action["actionStatus"] = COMPLETED
        action["resourceUsage"] = [
            self._thing(f"#{run}-{key}", "PropertyValue", name=name, propertyID=f"#{key}", value=value)
            for name, value in (
                ("processor", made.cpu),
                ("accelerator", made.gpu),
                ("CPU threads", str(made.threads)),
                ("peak memory in MB", f"{made.peak_memory_mb:g}"),
            )
            if value and (key := name.replace(" ", "-"))
        ]
        return action

    def _data(self, record: RunRecord) -> Any:
        """The data of a run, which are not in the crate, by their checksum."""
        tasks = ", ".join(task.name for task in record.tasks)
        text = f"What {record.experiment} was trained and tested on, not part of this crate. Tasks: {tasks}."
        text += " It stands in for the real data." * record.stand_in
        name = f"data of {record.experiment}"
        return self._thing(f"#data-{record.data}", "CreativeWork", name=name, identifier=record.data, description=text)

    def _software(self, record: RunRecord) -> Any:
        """This project at the run's commit, and what it stood on."""
        versions = record.provenance.versions
        needs = [self._application(name, version) for name, version in versions.items()]
        application = self._application("blip-continual", record.provenance.commit)
        known = application.get("softwareRequirements", [])
        application["softwareRequirements"] = list({entity.id: entity for entity in [*known, *needs]}.values())
        return application

    def _application(self, name: str, version: str) -> Any:
        identifier = f"{HOMES[name]}#{quote(version)}" if name in HOMES else f"pkg:pypi/{name}@{quote(version)}"
        home = {"url": HOMES[name]} if name in HOMES else {}
        return self._thing(identifier, "SoftwareApplication", name=name, softwareVersion=version, **home)

    def _workflow_run(self, shown: list[Any]) -> Any:
        """The action of the whole workflow, which is the crate's main entity."""
        paths = _recipe()
        recipe = [self._file(path, f"recipe/{path.relative_to(REPOSITORY).as_posix()}") for path in paths]
        workflow = self.crate.add_workflow(
            REPOSITORY / "workflow/Snakefile", "recipe/workflow/Snakefile", main=True, lang="snakemake"
        )
        workflow["name"] = "From raw data to tables and figures"
        workflow["version"] = commit_of(REPOSITORY, *RECIPE, untracked=False) or ", ".join(
            sorted({made.commit for made in self.made})
        )
        workflow["encodingFormat"], workflow["sha256"] = "text/plain", sha256(REPOSITORY / "workflow/Snakefile")
        workflow["conformsTo"] = {"@id": BIOSCHEMAS}
        workflow["hasPart"] = [file for file in recipe if file.id != workflow.id]
        action = self._thing("#workflow", "CreateAction", name="The workflow", description="snakemake")
        action["instrument"] = workflow
        action["object"] = list({file.id: file for file in self.configurations.values()}.values())
        action["result"] = shown or [self.crate.root_dataset]
        action["startTime"] = min(made.started for made in self.made)
        action["endTime"] = max(made.finished for made in self.made)
        return action


def _recipe() -> list[Path]:
    """The files of the workflow and its configuration, but documentation; in a clone those that are under version
    control."""
    if tracked := git(REPOSITORY, "ls-files", "-z", "--", *RECIPE):
        found = [REPOSITORY / name for name in tracked.split("\0") if name]
    else:
        found = [path for name in RECIPE for path in (REPOSITORY / name, *(REPOSITORY / name).rglob("*"))]
    return sorted(path for path in found if path.is_file() and path.suffix not in (".md", ".pyc"))
