"""What a run survives: passing errors, altered files, killed processes; and that nothing is lost or mixed silently."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from run_folders import write_run
from shell import Shell, interrupt_after, refused

from blip import source
from blip.data import storage
from blip.errors import BlipError
from blip.files import atomic_path, atomic_write
from blip.images.image_trainer import ImageTrainer
from blip.plan import check_settings
from blip.results import load_runs, write_tables
from blip.results.markup import to_csv
from blip.runs import train
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
    (tmp_path / ".mine.tmp").write_text("nor this")
    assert len(list(tmp_path.glob(".*.blip-tmp"))) == 2
    atomic_write(tmp_path / "another", "content")
    (held,) = tmp_path.glob(".*.blip-tmp")
    assert held.name.startswith(".living.")
    living.communicate()
    assert living.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", ".mine.txt", "another", "living"]
    assert (tmp_path / "living").read_bytes() == b"half"


def test_devices_and_links_stay_what_they_are(tmp_path: Path) -> None:
    pipe, link, there = (tmp_path / name for name in ("pipe", "link", "there"))
    os.mkfifo(pipe)
    with pytest.raises(BlipError, match="pipe: cannot be written: not a regular file"):
        atomic_write(pipe, "content")
    assert pipe.is_fifo()
    there.mkdir()
    link.symlink_to(there / "file")
    atomic_write(link, "content")
    assert link.is_symlink()
    assert (there / "file").read_text() == "content"


def test_a_commit_of_a_project_around_the_package_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blip").mkdir()
    (tmp_path / "blip" / "source.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(source, "REPOSITORY", tmp_path)
    assert source.present_commit().startswith("version ")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(source.present_commit()) == 12


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


# What a user meets


def test_what_nobody_foresaw_is_one_line_that_says_how_to_see_where(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("blip.config.load_experiment", fail)
    message = refused(shell("check", shell.config))
    assert message == "blip: ZeroDivisionError: first line (BLIP_TRACEBACK=1 shows where)"
    monkeypatch.setenv("BLIP_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        shell("check", shell.config)


def test_a_network_of_which_blip_keeps_nothing_is_told_with_what_to_try(shell: Shell) -> None:
    """A prior that nothing comes up to: all weights become 0, and the second task has no gradient."""
    status, lines = shell.train("blip", "--set", "methods.blip.f_prior=1e9")
    assert status == 2
    assert lines[-1].startswith("blip: tiny blip seed 0: task 1: the Fisher information is zero everywhere")
    assert "try a smaller methods.blip.f_prior (now 1e+09)" in lines[-1]


def test_what_the_parser_prints_may_have_no_reader() -> None:
    for command, status in (("--print-completion bash | head -c 1", 0), ("--version >/dev/full", 2)):
        script = f"set -o pipefail; {sys.executable} -m blip.cli {command}"
        run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert run.returncode in (status, 141 if "|" in command else status), run
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full", ">&- 2>&-"])
def test_output_that_goes_nowhere_leaves_no_traceback(redirected: str) -> None:
    code = "import sys; from blip.cli import main; sys.exit(main(['methods']))"
    command = ["sh", "-c", f'exec "$0" -c "{code}" {redirected}', sys.executable]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == (2 if "full" in redirected else 0)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (1 if "full" in redirected else 0)


def test_a_terminal_of_ascii_shows_everything_else_escaped() -> None:
    code = "import sys; from blip.cli import main; sys.exit(main(['methods']))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0
    assert rb"\u03bb" in done.stdout


def test_a_record_has_no_absolute_path(shell: Shell, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.config.write_text(shell.config.read_text().replace("folder: zoo", f"folder: {pictures}"))
    arguments = ["blip", f"--out={shell.folder}/runs", "--set", f"about=see {shell.folder}/about", "[{a: /home/me}]"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert shell.train("sgd", "--set", f"about=see {shell.folder}/about")[0] == 0
    text = (shell.runs / "tiny/sgd/seed0/run.json").read_text()
    assert str(shell.folder) not in text
    assert json.loads(text)["provenance"]["command"] == "blip --out=runs --set about=see about [{a: me}]"
    assert '"folder": "zoo"' in text or '"folder":"zoo"' in text


def test_the_commit_of_a_run_is_the_one_it_began_with(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = ["before"]
    monkeypatch.setattr(train, "present_commit", lambda: commits[-1])
    end = ImageTrainer.run

    def run(trainer: ImageTrainer, name: str) -> None:
        commits.append("checked out meanwhile")
        end(trainer, name)

    monkeypatch.setattr(ImageTrainer, "run", run)
    assert shell.train("sgd", "--set", "training.epochs=1")[0] == 0
    record = json.loads((shell.runs / "tiny/sgd/seed0/run.json").read_text())
    assert record["provenance"]["commit"] == "before"


def test_markup_and_formulas_from_records_are_neutralised(tmp_path: Path) -> None:
    for seed, cpu in enumerate(("<script>|", "a CPU")):
        write_run(tmp_path / "runs", seed=seed, cpu=cpu)
    text = write_tables(load_runs([tmp_path / "runs"]), tmp_path / "out")
    assert "<script>" not in text
    assert r"&lt;script&gt;\|" in text
    frame = pd.DataFrame({"game": ["=cmd", "+1", "@x", "-x", "fine"], "return": [-1.0, 2, 3, 4, 5]})
    cells = [line.split(",") for line in to_csv(frame).splitlines()]
    assert [cell for cell, _ in cells] == ["game", "'=cmd", "'+1", "'@x", "'-x", "fine"]
    assert cells[1][1] == "-1.0"


def test_the_lock_of_a_killed_workflow_is_known_from_that_of_a_living_one(tmp_path: Path) -> None:
    def status() -> int:
        command = [sys.executable, str(ROOT / "workflow/living.py")]
        return subprocess.run(command, cwd=tmp_path, check=False).returncode

    assert status() == 0, "there is no lock"
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("x")
    assert status() == 1, "nobody holds it"
    program = tmp_path / "bin" / "snakemake"
    program.parent.mkdir()
    program.write_text("import sys; print('up', flush=True); sys.stdin.read()")
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdout
        living.stdout.readline()
        assert status() == 0, "a Snakemake lives here"
        living.kill()
    assert status() == 1


@pytest.mark.parametrize("value", [3, True, "a{b}", "a'b", 'a"b', "a*", "a\nb", ["a"], {"a": 1}])
@pytest.mark.parametrize("key", ["results", "suite", "raw", "device", "container"])
def test_settings_of_the_workflow_that_are_no_plain_text_are_refused(key: str, value: object) -> None:
    settings = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    check_settings(settings)
    with pytest.raises(BlipError, match=f"^config: {key}: expected a text without braces") as error:
        check_settings(settings | {key: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *((key, None, "a text without braces") for key in ("suite", "raw", "data", "results", "device", "products")),
        ("products", "mkl", "auto, default or onednn, found 'mkl'"),
        ("device", "cuda:", "auto, cpu, cuda or one such as cuda:1, found 'cuda:'"),
        ("threads", 257, "at most 256, found 257"),
        ("threads", None, "a number of CPU threads, found None"),
    ],
)
def test_settings_of_the_workflow_that_no_job_would_take_are_refused(key: str, value: object, expected: str) -> None:
    settings = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(BlipError, match=f"^config: {key}: expected {expected}"):
        check_settings(settings | {key: value})


def test_whatever_a_setting_holds_is_a_word_of_a_command() -> None:
    """Placeholders in the commands of rules are quoted, but for numbers and what the plan itself writes."""
    ours = {"threads", "wildcards.seed", "params.seeds", "params.weights"}
    texts = [path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))]
    commands = [block for text in texts for block in re.findall(r"shell:\n((?: +f?\".*\n)+)", text)]
    assert len(commands) >= 8
    placeholders = [p for command in commands for p in re.findall(r"\{([a-z_.]+)(:q)?\}", command)]
    assert {name for name, quoted in placeholders if not quoted} <= ours
    assert sum(bool(quoted) for _, quoted in placeholders) > 20
