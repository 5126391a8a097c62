"""What a run survives: passing errors, altered files, killed processes; and that nothing is lost or mixed silently."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from shell import Shell, interrupt_after, refused

from blip.data import storage
from blip.files import atomic_path, atomic_write
from blip.training.checkpoint import Checkpoint

# Checkpoints


@pytest.fixture
def stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was interrupted after two epochs."""
    with monkeypatch.context() as context:
        interrupt_after(2, context)
        shell.train("blip")
    (path,) = shell.checkpoints.glob("*/checkpoint.pt")
    return path


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        MemoryError(),
        torch.OutOfMemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_passing_error_leaves_a_good_checkpoint_where_it_is(
    error: Exception,
    shell: Shell,
    stopped: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = stopped.read_bytes()

    read = Path.read_bytes

    def fail(path: object, **_: object) -> bytes:
        if isinstance(path, Path) and path != stopped:
            return read(path)
        raise error

    with monkeypatch.context() as context:
        target = (Path, "read_bytes") if isinstance(error, OSError) else (torch, "load")
        context.setattr(*target, fail)
        message = refused(shell.train("blip"))
    assert str(stopped) in message
    assert "damaged checkpoint" not in message
    assert stopped.read_bytes() == before
    assert any("going on at task 1, epoch 3" in line for line in shell.train("blip")[1])


def test_a_single_flipped_bit_is_damage(shell: Shell, stopped: Path) -> None:
    content = bytearray(stopped.read_bytes())
    content[len(content) // 2] ^= 1
    stopped.write_bytes(content)
    assert "damaged checkpoint (not its checksum), moved to checkpoint.damaged" in refused(shell.train("blip"))
    assert stopped.with_suffix(".damaged").read_bytes() == content


def test_a_damaged_checkpoint_that_cannot_be_moved_is_told_in_one_line(
    shell: Shell,
    stopped: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped.write_bytes(b"oops")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    message = refused(shell.train("blip"))
    assert "cannot be moved away (Permission denied): delete it" in message
    assert stopped.read_bytes() == b"oops"


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("method"),
        lambda state: state.pop("learning"),
        lambda state: state["learning"].pop("best_loss"),
        lambda state: state["learning"]["schedule"].update(warm_up=3),
        lambda state: state["tables"].pop("trace"),
        lambda state: state["network"].pop("heads.0.weight"),
        lambda state: state["network"].update({"heads.0.weight": torch.zeros(2, 2)}),
    ],
    ids=["method", "learning", "best loss", "schedule", "tables", "weights", "shapes"],
)
def test_a_sound_checkpoint_of_another_structure_says_what_to_do(
    change: Callable[[dict[str, object]], object],
    shell: Shell,
    stopped: Path,
) -> None:
    checkpoint = Checkpoint(stopped.parent)
    state = checkpoint.load(torch.device("cpu"))
    assert state
    change(state)
    checkpoint.save(state)
    before = stopped.read_bytes()
    for _ in range(2):
        status, lines = shell.train("blip")
        assert status == 2
        assert f"{stopped}: a checkpoint of another structure" in lines[-1]
        assert f"delete {stopped.parent} to start this run from its beginning" in lines[-1]
        assert stopped.read_bytes() == before


# What killed processes leave


WRITER = """
import sys, time
from pathlib import Path
from blip.data import storage
from blip.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def start_writing(path: Path) -> "subprocess.Popen[str]":
    """A process that has written half of a file, and waits until its input is closed."""
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    return process


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    living, killed = start_writing(tmp_path / "living"), start_writing(tmp_path / "killed")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    (tmp_path / ".mine.txt").write_text("hidden, and not ours")
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    atomic_write(tmp_path / "another", "content")
    (held,) = tmp_path.glob(".*.tmp")
    assert held.name.startswith(".living.")
    living.communicate()
    assert living.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.txt", "another", "living"]
    assert (tmp_path / "living").read_bytes() == b"half"


def test_two_files_of_one_process_are_written_side_by_side(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "one") as one, atomic_path(tmp_path / "two") as two:
        one.write_text("1")
        two.write_text("2")
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["1", "2"]


# Data


def flip(path: Path) -> None:
    """One bit of the file's last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def pictures(shell: Shell) -> Path:
    """Raw class folders, which the experiment now learns from."""
    for part, count in (("train", 4), ("test", 2)):
        for label in range(4):
            for i in range(count):
                path = shell.folder / "raw/zoo" / part / f"class{label}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (4, 4), 60 * label + i).save(path)
    source = "{name: zoo, folder: zoo, side: 4, channels: 1, classes_per_task: 2}"
    text = shell.config.read_text().replace("{name: digits, classes_per_task: 5}", source)
    shell.config.write_text(text)
    return shell.folder / "raw/zoo"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_altered_data_set_stops_with_a_line_and_a_finished_run_stays(shell: Shell) -> None:
    shell.train("sgd")
    before = contents(shell.runs)
    data = shell.data / "digits.safetensors"
    flip(data)
    for result in (shell.train("sgd"), shell.prepare()):
        message = refused(result)
        assert f"{data}: damaged or altered" in message
        assert "delete it and prepare the data again" in message
    data.unlink()
    assert shell.train("sgd")[1][-1].endswith("complete already")
    assert contents(shell.runs) == before


def test_other_raw_files_than_those_of_the_data_set_stop_with_a_line(shell: Shell, pictures: Path) -> None:
    assert shell.train("sgd")[0] == 0
    (pictures / "train/class0/0.png").rename(pictures / "train/class0/9.png")
    message = refused(shell.train("sgd"))
    assert "zoo-4x4x1.safetensors: made of other raw files (24 files" in message
    assert "delete it and prepare the data again" in message
    shutil.rmtree(shell.folder / "raw")
    assert shell.train("sgd")[1][-1].endswith("complete already"), "prepared data are enough"


def test_a_finished_run_is_replaced_by_one_of_other_data_only_when_asked_to(shell: Shell, pictures: Path) -> None:
    shell.train("sgd")
    before = contents(shell.runs)
    for path in [*pictures.glob("train/class0/*"), shell.data / "zoo-4x4x1.safetensors"]:
        path.unlink()
    Image.new("L", (4, 4), 255).save(pictures / "train/class0/0.png")
    message = refused(shell.train("sgd"))
    assert f"{shell.runs / 'tiny/sgd/seed0'}: a finished run on other data" in message
    assert "--again" in message
    assert contents(shell.runs) == before
    assert shell.train("sgd", "--again")[0] == 0
    after = contents(shell.runs)
    assert after != before
    assert shell.train("sgd", "--again")[1][-1].endswith("complete already")
    assert contents(shell.runs) == after


def test_a_data_set_is_summed_up_once_for_a_process(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    summed: list[object] = []
    checksum = storage.content_checksum
    monkeypatch.setattr(storage, "content_checksum", lambda *a: summed.append(a) or checksum(*a))
    assert shell.train("sgd blip", "--seed", "0", "1")[0] == 0
    assert len(summed) == 1


def test_a_record_that_lists_no_files_is_not_complete(shell: Shell) -> None:
    shell.train("sgd")
    record = shell.runs / "tiny/sgd/seed0/run.json"
    values = json.loads(record.read_text())
    values["files"] = {}
    record.write_text(json.dumps(values))
    assert "weights.safetensors was changed, accuracy.csv was changed" in shell.train("sgd")[1][0]
