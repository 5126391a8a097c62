"""`blip export` and `blip import`: the same predictions from a smaller file, one line of whatever is wrong with it."""

import json
import lzma
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import sign
from shell import Shell, refused

from blip.config import load_experiment
from blip.errors import BlipError
from blip.results.export import MAGIC, MOST_NUMBERS, read_export
from blip.training.checkpoint import Checkpoint


@pytest.fixture
def run(shell: Shell) -> Path:
    """A finished run of BLIP."""
    shell.train("blip")
    return shell.runs / "tiny" / "blip" / "seed0"


def export(shell: Shell, run: Path, name: str = "network.bits") -> Path:
    file = shell.folder / name
    assert shell("export", run, "--out", file) == (0, [])
    return file


@pytest.mark.parametrize(
    "changes", [{}, {"heads": "shared"}, {"methods.blip.max_bits": 24, "methods.blip.f_prior": 1e-17}]
)
def test_predictions_on_every_task_are_those_of_the_run(changes: dict[str, object], shell: Shell) -> None:
    assert shell.train("blip", *(["--set", *(f"{k}={v}" for k, v in changes.items())] if changes else []))[0] == 0
    folder = shell.runs / "tiny" / "blip" / "seed0"
    file, weights = export(shell, folder), shell.folder / "back.safetensors"
    assert shell("import", file, "--out", weights) == (0, [])
    experiment = load_experiment(shell.config, changes)
    inputs = experiment.inputs(0, shell.folder / "raw", shell.data, torch.device("cpu"))
    trainer = experiment.trainer("blip", 0, inputs, Checkpoint(shell.folder / "none"), torch.device("cpu"))
    back = safetensors.torch.load_file(weights)
    trainer.network.load_state_dict(back)
    accuracy = pd.read_csv(folder / "accuracy.csv")
    measured = accuracy[accuracy["task_learned"] == 1].set_index("task")
    for task in (0, 1):
        loss, share = trainer.evaluate(inputs.test(task), task)
        assert (loss, share) == (measured["loss"][task], measured["accuracy"][task])
    state = safetensors.torch.load_file(folder / "weights.safetensors")
    assert all(value.numpy().tobytes() == state[name].numpy().tobytes() for name, value in back.items())
    assert file.stat().st_size < weights.stat().st_size


def test_the_table_says_what_each_form_takes(shell: Shell, run: Path) -> None:
    file = export(shell, run)
    rows = {
        row.split("|")[1].strip(): [c.strip() for c in row.split("|")[2:-1]]
        for row in shell.out.splitlines()
        if "|" in row
    }
    shared, heads = 64 * 8 + 8, 2 * (8 * 5 + 5)
    assert rows["float32"] == [f"{4 * (shared + heads):,}", "32.00", "1.00", "yes"]
    assert rows["float16"][:2] == [f"{2 * shared + 4 * heads:,}", "16.00"]
    assert rows["int8 and a scale for each tensor"][0] == f"{shared + 4 * 2 + 4 * heads:,}"
    assert rows["the same, compressed: this file"][0] == f"{file.stat().st_size:,}"
    assert "every weight comes back bit by bit" in shell.out
    assert export(shell, run, "again").read_bytes() == file.read_bytes()


def test_runs_without_frozen_bits_are_refused(shell: Shell, run: Path) -> None:
    shell.train("sgd", "--set", "training.epochs=1")
    assert "no frozen bits in weights.safetensors" in refused(
        shell("export", shell.runs / "tiny/sgd/seed0", "--out", "x")
    )
    (run / "weights.safetensors").write_bytes(b"changed")
    assert "weights.safetensors was changed" in refused(shell("export", run, "--out", shell.folder / "x"))
    (run / "weights.safetensors").unlink()
    assert "weights.safetensors is missing" in refused(shell("export", run, "--out", shell.folder / "x"))
    assert "run.json: cannot be read" in refused(shell("export", shell.folder / "nowhere", "--out", shell.folder / "x"))


def test_a_file_of_the_run_is_no_place_for_its_export(shell: Shell, run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for name in before:
        assert f"{name}: a file of the run itself" in refused(shell("export", run, "--out", run / name))
    file = export(shell, run)
    assert "network.bits: the exported file itself" in refused(shell("import", file, "--out", file))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    read_export(file)


def test_weights_that_are_none_are_told(shell: Shell, run: Path) -> None:
    state = safetensors.torch.load_file(run / "weights.safetensors")
    state.pop("bound.features.1.bias")
    for content, said in (
        (safetensors.torch.save(state), "features.1.bias: expected its weights and range beside its frozen bits"),
        (b"no network at all", "expected the network of a run: "),
    ):
        (run / "weights.safetensors").write_bytes(content)
        sign(run)
        assert f"weights.safetensors: {said}" in refused(shell("export", run, "--out", shell.folder / "x"))
        assert not (shell.folder / "x").exists()


def test_a_network_that_would_not_come_back_is_not_written(
    shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip.results.export.MOST_NUMBERS", 10)
    assert "numbers, expected at most 10" in refused(shell("export", run, "--out", shell.folder / "x"))
    assert not (shell.folder / "x").exists()


def test_a_weight_that_was_not_consolidated_is_told(shell: Shell, run: Path) -> None:
    state = safetensors.torch.load_file(run / "weights.safetensors")
    state["features.1.weight"][0, 0] += 1e-3
    (run / "weights.safetensors").write_bytes(safetensors.torch.save(state))
    sign(run)
    assert "weights.safetensors: " in (line := refused(shell("export", run, "--out", shell.folder / "x")))
    assert "is no number of" in line


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file like those of `blip export`, of two tensors."""
    header = {"experiment": "e", "method": "blip", "seed": 0, "key": "k"}
    tensors = [
        {"name": "a", "shape": [3], "dtype": "float32", "bound": 1.0},
        {"name": "b", "shape": [2], "dtype": "float32"},
    ]
    payload = bytes([1]) + bytes([0b00100000, 0b00000000, 0b01100000]) + torch.ones(2).numpy().tobytes()
    return wrapped(header | {"tensors": tensors}, payload)


def wrapped(header: dict[str, object], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return MAGIC + lzma.compress(len(text).to_bytes(4, "little") + text + payload)


def test_the_format_is_what_it_says(exported: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(exported)
    tensors = read_export(tmp_path / "file")
    assert tensors["a"].tolist() == [0, 0.5, -0.5]
    assert tensors["b"].tolist() == [1, 1]


def refusal(file: Path) -> str:
    """What is said of a damaged file; nothing where it can be read."""
    try:
        read_export(file)
    except BlipError as error:
        return str(error)
    return ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_one_line(data: st.DataObject, exported: bytes, tmp_path: Path) -> None:
    content = bytearray(exported)
    place = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["cut", "flip", "garbage", "more"]))
    if change == "cut":
        content = content[:place]
    elif change == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif change == "garbage":
        content = bytearray(MAGIC) + bytearray(data.draw(st.binary(max_size=200)))
    else:
        content += data.draw(st.binary(min_size=1, max_size=9))
    (tmp_path / "file").write_bytes(content)
    said = refusal(tmp_path / "file")
    assert said.startswith(f"{tmp_path / 'file'}: expected a network written by blip export") or not said
    assert said or change == "flip", "what is cut, longer or garbage is seen"
    assert "\n" not in said


@pytest.mark.parametrize(
    ("tensor", "payload", "expected"),
    [
        ({"shape": [2**40]}, b"", f"numbers, expected at most {MOST_NUMBERS:,}"),
        ({"shape": [2]}, b"\0" * 7, "too short"),
        ({"shape": [2]}, b"\0" * 9, "too long"),
        ({"shape": [2]}, b"\0" * 2**22, "too long"),
        ({"shape": [2], "bound": 1.0}, b"\x01\0\0", "too short"),
        ({"shape": [1], "bound": 1.0}, b"\x19\0\0\0", "25 frozen bits, expected at most 24"),
        ({"shape": [1], "bound": 1.0}, b"\x01\x00\x80\x80", "a parameter outside of its range"),
        ({"shape": [1], "bound": -1.0}, b"", "tensors.0.bound"),
        ({"shape": [-1]}, b"", "tensors.0.shape.0"),
        ({"shape": [1], "dtype": "object"}, b"", "tensors.0.dtype"),
        ({"shape": [1], "code": "x"}, b"", "tensors.0.code"),
        ({"shape": [1], "name": "__metadata__"}, b"\0" * 4, "tensors.0.name"),
        ({"shape": [1], "name": "a\n\u001b"}, b"\0" * 4, "tensors.0.name"),
        ({"shape": [1], "name": "\ud800"}, b"\0" * 4, "expected"),
        ({"shape": [1], "name": "again"}, b"\0" * 8, "tensors.again: there twice"),
        ({"shape": [1], "bound": 1.0, "dtype": "int64"}, b"\x01\0", "tensors.0.dtype: packed, expected float32"),
    ],
)
def test_headers_that_promise_what_is_not_there(
    tensor: dict[str, object], payload: bytes, expected: str, tmp_path: Path
) -> None:
    header = {"experiment": "e", "method": "blip", "seed": 0, "key": "k", "tensors": [{"name": "a"} | tensor]}
    header["tensors"] = [{"name": "a"} | tensor] * (2 if tensor.get("name") == "again" else 1)
    (tmp_path / "file").write_bytes(wrapped(header, payload))
    with pytest.raises(BlipError, match="expected a network written by blip export") as error:
        read_export(tmp_path / "file")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none_are_refused(shell: Shell) -> None:
    (shell.folder / "text").write_text("hello")
    assert "text: expected a network written by" in refused(shell("import", shell.folder / "text", "--out", "x"))
    assert "nowhere: cannot be read" in refused(shell("import", shell.folder / "nowhere", "--out", "x"))
