"""Train one run and write its folder."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from blip.config import fingerprint
from blip.devices import keep_freed_memory, pick_device, tensor_float_32
from blip.errors import BlipError, DivergedError
from blip.experiment import Experiment, Inputs
from blip.files import make_writable_folder
from blip.record import (
    FORMAT,
    RECORD,
    Numbers,
    Provenance,
    RunRecord,
    TaskRecord,
    changed_files,
    read_record,
    run_files,
    run_folder,
    write_run,
)
from blip.runs.provenance import provenance
from blip.runs.score_text import score_table
from blip.source import present_commit
from blip.training.checkpoint import Checkpoint
from blip.training.loop import Trainer
from blip.training.products import AUTO, DEFAULT, choose, computed_by


@dataclass(frozen=True)
class Training:
    """Where runs find what they need, and what they are trained on; no number depends on it but by `products`."""

    raw: Path
    prepared: Path
    checkpoints: Path
    device: str = "auto"
    cuda_graphs: bool = True
    products: str = AUTO
    """See `choose`."""
    again: bool = False
    """Whether a finished run of the same configuration on other data is replaced."""


def train_run(
    experiment: Experiment, method: str, seed: int, out: Path, how: Training, *, weights: bool = True
) -> Path:
    """Train one run and write its folder below `out`; a finished one of the same configuration is left alone.

    A finished one of another configuration is replaced; one of the same on other data only where `how` says so. Goes on
    from the run's checkpoint where a process was stopped before, and removes it at the end. `weights`: whether the
    folder holds the network's, which tables and figures do not need. Raises BlipError for bad input, a full disk or a
    diverging loss.
    """
    folder = run_folder(out, experiment.name, method, seed)
    _check_variant(experiment, folder)
    config, target = experiment.run_config(method, seed), pick_device(how.device)
    inputs = experiment.inputs(seed, how.raw, how.prepared, target)
    key = fingerprint([config, inputs.checksum, metadata.version("blip-continual")])
    library = choose(how.products, target, experiment.largest_product(method, inputs))
    # Other roundings: a run is not resumed with them.
    checkpoint = Checkpoint(how.checkpoints / (key if library == DEFAULT else f"{key}-{library}"))
    expected = run_files(experiment.tables_of(method), weights)[:-1]
    if _is_complete(folder, key, config, inputs.checksum, how.again, expected):
        print(f"{folder}: complete already", file=sys.stderr)
        checkpoint.remove()  # still there where the run was killed right after its last file
        return folder
    keep_freed_memory()
    for needed in (how.checkpoints, folder):  # where one cannot be made or written to, say so before training
        make_writable_folder(needed)
    for name in [*expected, RECORD]:
        if (folder / name).is_dir():
            raise BlipError(f"{folder / name}: a folder, expected a file or none")
    started, commit = datetime.now(UTC), present_commit()  # of the code that runs, whatever is checked out meanwhile
    with checkpoint.held(), computed_by(library), tensor_float_32(target, experiment.tf32(method)):
        trainer = experiment.trainer(method, seed, inputs, checkpoint, target, how.cuda_graphs)
        title = f"{experiment.name} {method} seed {seed}"
        try:
            trainer.run(title)
        except DivergedError as error:
            raise DivergedError(f"{title}: {error}") from None
        made_by = provenance(target, started, commit, library, experiment.packages)
        record = _record(experiment, method, seed, inputs, trainer, key, made_by)
        write_run(folder, record, _weights(trainer) if weights else None, trainer.tables)
        checkpoint.remove()
    print(score_table(trainer.tables[experiment.score.table], experiment.score, trainer.names), file=sys.stderr)
    return folder


def _record(
    experiment: Experiment, method: str, seed: int, inputs: Inputs, trainer: Trainer, key: str, made_by: Provenance
) -> RunRecord:
    tasks = zip(inputs.names, inputs.outputs, trainer.trained, strict=True)
    shared, by_task = trainer.network.numbers()
    return RunRecord(
        format=FORMAT,
        experiment=experiment.name,
        method=method,
        seed=seed,
        stand_in=experiment.stand_in,
        score=experiment.score,
        tasks=[TaskRecord(name=name, outputs=outputs, trained=length) for name, outputs, length in tasks],
        network=Numbers(shared=shared, by_task=by_task),
        tables=experiment.tables_of(method),
        config=experiment.run_config(method, seed),
        defaults=experiment.defaults_of(method),
        key=key,
        data=inputs.checksum,
        provenance=made_by,
        files={},
    )


def _weights(trainer: Trainer) -> bytes:
    weights, beside = trainer.network.state_dict(), trainer.method.beside_weights()
    if both := weights.keys() & beside.keys():
        raise BlipError(f"method {trainer.method.name}: beside_weights: {min(both)}: a weight of the network")
    state = weights | beside
    tensors = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    content: bytes = safetensors.torch.save(tensors)
    return content


def _check_variant(experiment: Experiment, folder: Path) -> None:
    """Raise BlipError where runs beside this one vary other settings under its name: no table could take both."""
    if experiment.variant is None:
        return
    for other in sorted(folder.parents[1].glob(f"*/*/{RECORD}")):
        try:
            there = read_record(other.parent).variant
        except BlipError:  # said where it is needed
            continue
        if there and there.settings != experiment.variant.settings:
            varied = (", ".join(variant.settings) for variant in (there, experiment.variant))
            raise BlipError("{}: varies {}, not {}: give another --out".format(other.parent, *varied))
        return


def _is_complete(folder: Path, key: str, config: dict[str, Any], data: str, again: bool, expected: list[str]) -> bool:
    """Whether the folder holds this run with the `expected` files; says why not where it holds a part or another one.

    Raises BlipError where it holds a run of the same configuration on other data, unless asked to train it again.
    """
    if not (folder / RECORD).exists():
        return False
    try:
        record = read_record(folder)
    except BlipError as error:
        print(f"{error}: trained again", file=sys.stderr)
        return False
    if record.config == config and record.data != data and not again:
        raise BlipError(
            f"{folder}: a finished run on other data than are prepared now: keep it and give another --out, "
            "or replace it with --again (in the workflow: another results=, or delete the run)"
        )
    if record.config != config:
        print(f"{folder}: a finished run of another configuration: trained again", file=sys.stderr)
    changed = changed_files(folder, record, expected) if record.key == key else []
    if changed:
        print(f"{folder}: {', '.join(changed)}: trained again", file=sys.stderr)
    return record.key == key and not changed
