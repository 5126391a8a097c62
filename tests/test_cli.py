"""The command line: what it does, and that whatever goes wrong is told in one line."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from shell import Shell, interrupt_after, refused

import blip.training.loop
from blip.methods import METHODS

COMMON = ["accuracy.csv", "cost.csv", "history.csv", "memory.csv", "run.json", "weights.safetensors"]
FILES = {"sgd": COMMON, "blip": sorted([*COMMON, "bits.csv", "moves.csv", "trace.csv"])}


# Bad input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "required: experiment, --method"),
        (["train", "CONFIG"], "--method"),
        (["train", "CONFIG", "--method"], "expected at least one argument"),
        (["train", "CONFIG", "--method", "sgd", "--fast"], "unrecognized arguments: --fast"),
        (["train", "nowhere.yaml", "--method", "sgd"], "nowhere.yaml: cannot be read: No such file"),
        (["train", "CONFIG", "--method", "magic"], "method magic: not in tiny (it has blip, sgd"),
        (["train", "CONFIG", "--method", "sgd", "--seed", "-1"], "argument --seed"),
        (["train", "CONFIG", "--method", "sgd", "--seed", "one"], "'one' is not a seed"),
        (["train", "CONFIG", "--method", "sgd", "--seed", "1.5"], "'1.5' is not a seed"),
        (["train", "CONFIG", "--method", "sgd", "--threads", "0"], "--threads 0: expected at least 1"),
        (["train", "CONFIG", "--method", "sgd", "--threads", "two"], "argument --threads"),
        (["train", "CONFIG", "--method", "sgd", "--device", "gpu9"], "--device gpu9: not available"),
        (["train", "CONFIG", "--method", "sgd", "--set", "training.epoks=1"], "training.epoks: unknown key"),
        (["train", "CONFIG", "--method", "sgd", "--set", "training.epochs"], "expected KEY=VALUE"),
        (
            ["train", "CONFIG", "--method", "sgd", "--set", "training.lr=quick"],
            ", changed in training.lr: training.lr: Input should be a valid number, unable to parse string as a number "
            "(found 'quick')",
        ),
        (
            ["train", "CONFIG", "--method", "sgd", "--set", "training_changes.sgd.lr=0.2", "--vary", "training.lr=0.1"],
            "training.lr: changes nothing of sgd: expected training_changes.sgd.lr",
        ),
        (
            ["train", "CONFIG", "--method", "sgd", "--vary", "methods.ewc.strength=1"],
            "--vary methods.ewc.strength: changes nothing of sgd: expected its own method in methods",
        ),
        (["train", "CONFIG", "--method", "sgd", "--out", "FILE"], "FILE/tiny/sgd/seed0: cannot be written"),
        (["train", "CONFIG", "--method", "sgd", "--checkpoints", "FILE"], "cannot be written"),
        (["train", "CONFIG", "--method", "sgd", "--data", "FILE"], "cannot be written"),
        (["check", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["check", "CONFIG", "TYPO"], "training.epoks: unknown key"),
        (["check", "FILE"], "FILE: expected keys and values"),
        (["data", "."], ".: cannot be read: Is a directory"),
        (["data", "CONFIG", "--source", "mnist"], "--source mnist: "),
        (["data", "CONFIG", "--seed", "x"], "'x' is not a seed"),
        (
            ["data", "CONFIG", "--set", "data.sources=[{name: z, folder: z, side: 4}]"],
            "z: expected train/<class>/ and test/",
        ),
        (["tables", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["tables", "FILE", "--out", "x"], "FILE: "),
        (["tables", "."], "required: --out"),
        (["figures", ".", "--out", "x"], "no finished runs"),
        (["page", ".", "--out", "x"], "no finished runs"),
        (["page", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["crate", ".", "--out", "x"], "no finished runs"),
        (["crate", "nowhere", "--out", "x"], "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], expected: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.folder)
    Path("CONFIG").write_text(shell.config.read_text())
    Path("TYPO").write_text(
        shell.config.read_text().replace("{lr: 0.1, batch_size: 32, epochs", "{lr: 0.1, batch_size: 32, epoks")
    )
    Path("FILE").write_text("not a folder, and no experiment")
    assert expected in refused(shell(*arguments))
    assert not shell.runs.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_refused(shell: Shell) -> None:
    assert "--device cuda: not available" in refused(shell.train("sgd", "--device", "cuda"))


# Commands


def test_methods_lists_every_method_with_every_setting(shell: Shell) -> None:
    assert shell("methods") == (0, [])
    blocks = {}
    for block in re.split(r"\n(?! )", shell.out.strip()):
        name, about, *listed = map(str.strip, block.splitlines())
        blocks[name] = listed
        assert len(about) > 20
        fields = METHODS[name].Settings.model_fields
        keys = [key for line in listed if (key := line.partition(":")[0]) in fields]
        assert keys == list(fields)
        meanings = " ".join(listed)
        assert all(field.description and field.description.split()[0] in meanings for field in fields.values())
    assert list(blocks) == list(METHODS)
    assert "f_prior: required" in blocks["blip"]
    assert "max_bits: default 20" in blocks["blip"]
    assert "form: default online (or offline)" in blocks["ewc"]


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-c", "import sys; from blip.cli import main; sys.exit(main(['methods']))"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == b""


def test_check_names_each_experiment_and_its_methods(shell: Shell) -> None:
    assert shell("check", shell.config, ROOT / "config/experiments/mnist5.yaml", "--set", "training.epochs=1") == (
        0,
        [],
    )
    tiny, mnist = shell.out.splitlines()
    methods = "blip, sgd, sgd-frozen, ewc, lwf, imm-mode, single-task, joint, si, mas, gpm, packnet, hat"
    assert tiny == f"{shell.config}: tiny: {methods}"
    assert "mnist5: blip" in mnist


def test_check_names_each_experiment_of_a_suite_with_its_seeds(shell: Shell) -> None:
    suite = shell.folder / "suite.yaml"
    entry = {"config": str(shell.config), "methods": ["sgd", "blip"], "seeds": [0, 3], "only_if_present": True}
    suite.write_text(yaml.safe_dump({"name": "mine", "seeds": [1], "experiments": [entry]}))
    assert shell("check", suite) == (0, [])
    assert shell.out.splitlines() == [f"{suite}: tiny: sgd, blip; seeds 0 3"]
    assert shell("check", suite, "--set", "training.epochs=1")[0] == 2
    suite.write_text(yaml.safe_dump({"name": "mine", "seeds": [1], "experiments": [entry | {"seed": 1}]}))
    status, lines = shell("check", suite)
    assert status == 2
    assert "experiments.0.seed: unknown key" in lines[0]


def test_data_prepares_the_data_set_and_a_split_for_each_seed(shell: Shell) -> None:
    assert shell.prepare("--seed", "0", "3") == (0, [])
    splits = [f"splits/tiny/seed{seed}.safetensors" for seed in (0, 3)]
    assert shell.out.splitlines() == [str(shell.data / split) for split in splits]
    assert shell.files(shell.data) == ["digits.safetensors", *splits]


def test_data_of_one_source_makes_it_anew_and_no_split(shell: Shell) -> None:
    shell.data.mkdir()
    (shell.data / "digits.safetensors").write_text("old")
    assert shell.prepare("--source", "digits") == (0, [])
    assert shell.files(shell.data) == ["digits.safetensors"]
    assert (shell.data / "digits.safetensors").stat().st_size > 100_000


def test_of_two_sources_of_one_name_one_is_made_by_its_file(shell: Shell) -> None:
    for part in ("train", "test"):
        for name in ("bee", "cat"):
            (shell.folder / "raw/zoo" / part / name).mkdir(parents=True)
            Image.new("L", (8, 8), len(part) * len(name)).save(shell.folder / "raw/zoo" / part / name / "0.png")
    sources = ", ".join(f"{{name: zoo, folder: zoo, channels: 1, side: {side}}}" for side in (4, 8))
    shell.config.write_text(shell.config.read_text().replace("{name: digits, classes_per_task: 5}", sources))
    assert shell.prepare("--source", "zoo-8x8x1")[0] == 0
    assert shell.files(shell.data) == ["zoo-8x8x1.safetensors"]
    assert shell.prepare("--source", "zoo")[0] == 0
    assert shell.files(shell.data) == ["zoo-4x4x1.safetensors", "zoo-8x8x1.safetensors"]
    assert "--source zoo-2x2x1: " in refused(shell.prepare("--source", "zoo-2x2x1"))


def test_train_writes_a_run_folder_and_a_second_time_does_nothing(shell: Shell) -> None:
    status, lines = shell.train("sgd blip", "--seed", "1", "2", "--set", "training.epochs=2")
    assert status == 0
    assert sum("learned in" in line for line in lines) == 8, "a line for each task of each run"
    folders = [shell.runs / "tiny" / method / f"seed{seed}" for method in ("sgd", "blip") for seed in (1, 2)]
    assert shell.out.splitlines() == [str(folder) for folder in folders]
    for folder in folders:
        assert shell.files(folder) == FILES[folder.parent.name]
        assert len(pd.read_csv(folder / "accuracy.csv")) == 3
        assert len(pd.read_csv(folder / "history.csv")) == 4
    assert not shell.files(shell.checkpoints)
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    status, lines = shell.train("sgd blip", "--seed", "1", "2", "--set", "training.epochs=2")
    assert (status, lines) == (0, [f"{folder}: complete already" for folder in folders])
    assert {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()} == before


def test_a_run_of_another_configuration_is_done_again(shell: Shell) -> None:
    shell.train("sgd", "--set", "training.epochs=1")
    history = shell.runs / "tiny/sgd/seed0/history.csv"
    assert len(pd.read_csv(history)) == 2
    lines = shell.train("sgd", "--set", "training.epochs=2")[1]
    assert lines[0] == f"{history.parent}: a finished run of another configuration: trained again"
    assert len(pd.read_csv(history)) == 4


def test_a_finished_run_is_trained_again_where_a_file_is_missing_or_changed(shell: Shell) -> None:
    shell.train("sgd", "--set", "training.epochs=2")
    folder = shell.runs / "tiny" / "sgd" / "seed0"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("run.json", "cost.csv")}
    (folder / "history.csv").unlink()
    (folder / "accuracy.csv").write_text("task_learned,task,accuracy,loss,n\n0,0,1,0,9\n")
    lines = shell.train("sgd", "--set", "training.epochs=2")[1]
    assert lines[0] == f"{folder}: accuracy.csv was changed, history.csv is missing: trained again"
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_run_without_weights_is_complete_until_they_are_asked_for(shell: Shell) -> None:
    folder = shell.runs / "tiny" / "sgd" / "seed0"
    short = ("sgd", "--set", "training.epochs=1")
    shell.train(*short, "--no-weights")
    assert shell.files(folder) == [name for name in FILES["sgd"] if name != "weights.safetensors"]
    assert shell.train(*short, "--no-weights")[1] == [f"{folder}: complete already"]
    assert shell.train(*short)[1][0] == f"{folder}: weights.safetensors is missing: trained again"
    assert shell.files(folder) == FILES["sgd"]
    (folder / "weights.safetensors").unlink()
    assert shell.train(*short, "--no-weights")[1] == [f"{folder}: complete already"], "they were not needed"


def test_a_finished_run_without_a_table_that_is_recorded_by_now_is_trained_again(shell: Shell) -> None:
    shell.train("blip", "--set", "training.epochs=1")
    folder = shell.runs / "tiny" / "blip" / "seed0"
    record = json.loads((folder / "run.json").read_text())
    record["tables"] = [table for table in record["tables"] if table["name"] != "moves"]
    del record["files"]["moves.csv"]
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "moves.csv").unlink()
    assert shell("tables", str(shell.runs), "--out", str(shell.runs / "tables"))[0] == 0, "what is there can be shown"
    assert shell.train("blip", "--set", "training.epochs=1")[1][0] == f"{folder}: moves.csv is missing: trained again"
    assert shell.files(folder) == FILES["blip"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "training.epochs=1", "--set", "training.epochs=2"], "--set training.epochs: expected each key once"),
        (["--vary", "training.lr=0.1", "training.lr=0.2"], "--vary training.lr: expected each key once"),
    ],
)
def test_a_key_is_given_once(words: list[str], expected: str, shell: Shell) -> None:
    assert expected in refused(shell.train("sgd", *words))
    grid = ["--grid", "strength=1", "--grid", "strength=10", "--out", shell.folder / "tuned"]
    assert "--grid strength: expected each key once" in refused(shell("tune", shell.config, "--method", "ewc", *grid))


def test_one_name_is_not_given_to_two_variants(shell: Shell) -> None:
    assert shell.train("ewc", "--vary", "methods.ewc.strength=1")[0] == 0
    line = refused(shell.train("lwf", "--vary", "methods.lwf.strength=1"))
    assert "varies methods.ewc.strength, not methods.lwf.strength: give another --out" in line
    assert shell.train("ewc", "--vary", "methods.ewc.strength=1", "--seed", "1")[0] == 0
    assert shell("results", shell.runs)[0] == 0


def test_settings_may_be_given_together_or_one_by_one(shell: Shell) -> None:
    shell.train("sgd", "--set", "training.epochs=2", "--set", "training.lr=0.05", "data.validation=0.1")
    history = pd.read_csv(shell.runs / "tiny/sgd/seed0/history.csv")
    assert len(history) == 4
    assert set(history["lr"]) == {0.05}


# What goes wrong while training


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would: writing fails with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "prepare", "named"),
    [
        (50_000, [], "digits.safetensors"),
        (3_000, ["--source", "digits"], "seed0.safetensors"),
        (500, ["--seed", "0"], "weights.safetensors"),
        (3_000, ["--seed", "0"], "checkpoint.pt"),
    ],
    ids=["data set", "split", "results", "checkpoint"],
)
def test_a_full_disk_leaves_nothing_half_written_and_a_second_attempt_succeeds(
    size: int, prepare: list[str], named: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    if prepare:
        shell.prepare(*prepare)
    before = shell.files(shell.folder)
    if named == "checkpoint.pt":
        monkeypatch.setattr(blip.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    with largest_file(size):
        status, lines = shell.train("sgd")
    assert status == 2
    assert named in lines[-1]
    assert "cannot be written: " in lines[-1]
    assert "File too large" in lines[-1]
    assert all(line.startswith("tiny sgd seed 0: task") for line in lines[:-1])
    left = [file for file in shell.files(shell.folder) if not file.endswith("/lock")]
    assert left == before
    assert shell.train("sgd")[0] == 0
    assert shell.files(shell.runs / "tiny/sgd/seed0") == FILES["sgd"]
    assert not shell.files(shell.checkpoints)


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(shell: Shell) -> None:
    message = refused(shell.train("sgd", "--set", "training.lr=1e20"))
    assert "tiny sgd seed 0: task 0, epoch 0: the loss is" in message
    assert "try a lower training.lr (now 1e+20)" in message
    assert shell.files(shell.folder / "runs") == []
    message = refused(shell.train("ewc", "--set", "training.lr=1e20"))
    assert re.search(r"training.lr \(now 1e\+20\) or methods.ewc.strength \(now [1-9]\d*\)$", message.rstrip())
    assert shell.train("sgd")[0] == 0, "the same run with the settings of the file"


def test_of_several_runs_the_others_go_on_where_one_diverges(shell: Shell) -> None:
    status, lines = shell.train("ewc sgd", "--seed", "0", "1", "--set", "training_changes.ewc.lr=1e20")
    assert status == 2
    said = [line for line in lines if "the loss is" in line]
    assert [line.split(":")[0] for line in said] == ["tiny ewc seed 0", "tiny ewc seed 1", "blip"]
    assert said[-1].startswith("blip: 2 of 4 runs diverged, the first: tiny ewc seed 0: task 0")
    assert sorted(path.parent.name for path in shell.runs.rglob("run.json")) == ["seed0", "seed1"]
    assert shell.out.split() == [str(shell.runs / f"tiny/sgd/seed{seed}") for seed in (0, 1)]


def test_a_folder_in_a_file_s_place_is_told_before_training(shell: Shell) -> None:
    for name in ("run.json", "cost.csv"):
        (shell.runs / "tiny/sgd/seed0" / name).mkdir(parents=True)
        status, lines = shell.train("sgd")
        assert status == 2
        assert lines[-1].endswith(f"tiny/sgd/seed0/{name}: a folder, expected a file or none")
        assert not [line for line in lines if "epoch" in line]
        (shell.runs / "tiny/sgd/seed0" / name).rmdir()


@pytest.mark.parametrize("command", ["figures", "games", "page", "claims", "crate"])
def test_where_nothing_can_be_written_is_told_at_once(
    command: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.train("sgd", "--set", "training.epochs=1")
    (shell.folder / "file").touch()
    monkeypatch.setattr("blip.results.loading.read_record", None)  # no run is read before
    before = shell.files(shell.folder)
    said = refused(shell(command, shell.runs, "--out", shell.folder / "file" / "out"))
    assert "file/out: cannot be written: Not a directory" in said or "file: cannot be written" in said
    assert shell.files(shell.folder) == before


def test_an_interrupted_run_goes_on_where_it_stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        interrupt_after(4, context)
        status, lines = shell.train("blip")
    assert status == 130
    assert lines[-1] == "blip: interrupted; the same command goes on where it stopped"
    assert shell.files(shell.runs) == []
    status, lines = shell.train("blip")
    assert status == 0
    assert "tiny blip seed 0: going on at task 2, epoch 2" in lines
    resumed = (shell.runs / "tiny/blip/seed0/weights.safetensors").read_bytes()
    shell.train("blip", "--out", shell.folder / "whole")
    assert (shell.folder / "whole/tiny/blip/seed0/weights.safetensors").read_bytes() == resumed


@pytest.mark.parametrize(
    "damage",
    [lambda p: p.write_bytes(p.read_bytes()[:999]), lambda p: p.write_bytes(b""), lambda p: p.write_text("oops")],
    ids=["cut", "empty", "text"],
)
def test_a_damaged_checkpoint_is_told_once_and_then_the_run_starts_afresh(
    damage: object, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        interrupt_after(2, context)
        shell.train("sgd")
    (path,) = shell.checkpoints.glob("*/checkpoint.pt")
    damage(path)  # type: ignore[operator]
    message = refused(shell.train("sgd"))
    assert str(path) in message
    assert "run again to start this run from its beginning" in message
    status, lines = shell.train("sgd")
    assert status == 0
    assert not any("going on" in line for line in lines)
    assert shell.files(shell.runs / "tiny/sgd/seed0") == FILES["sgd"]
    assert not shell.files(shell.checkpoints)


def test_a_varied_setting_gives_the_run_a_folder_of_its_own(shell: Shell) -> None:
    varied = ("--vary", "methods.blip.f_prior=1e-11", "--set", "training.epochs=1")
    assert shell.train("blip", *varied)[0] == 0
    record = json.loads((shell.runs / "tiny.f_prior-1e-11" / "blip" / "seed0" / "run.json").read_text())
    assert record["config"]["variant"] == {"of": "tiny", "settings": {"methods.blip.f_prior": 1e-11}}
    assert (shell.data / "splits" / "tiny.f_prior" / "seed0.safetensors").exists()
    assert shell("check", shell.config, "--vary", "training.lr=0.5")[0] == 0
    assert shell.out.startswith(f"{shell.config}: tiny.lr-0.5: blip, sgd, ")
    assert "--vary x: expected KEY=VALUE" in refused(shell("check", shell.config, "--vary", "x"))
