"""Commands that say what there is: experiments, results, completion."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT
from run_folders import write_run
from shell import Shell, refused

from blip.claims import PUBLISHED
from blip.cli import main
from blip.config import published


def test_experiments_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments"]) == 0
    listed = capsys.readouterr().out
    assert {path.stem for path in (ROOT / "config" / "experiments").glob("*.yaml")} == set(published())
    assert all(f"\n{name}\n" in f"\n{listed}" for name in published())
    assert "MNIST in five tasks of two digits" in listed
    assert main(["experiments", "mnist5"]) == 0
    assert capsys.readouterr().out.startswith("name: mnist5\nabout:")


def test_a_published_experiment_is_known_by_its_name(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell.folder)
    status, _ = shell("check", "digits5", "mnist5")
    assert status == 0
    assert shell.out.splitlines()[1].startswith("mnist5: mnist5: blip, sgd")
    assert "no published experiment (known: atari2," in refused(shell("check", "mnist55"))
    (shell.folder / "mnist5").write_text((shell.folder / "tiny.yaml").read_text())
    assert shell("check", "mnist5")[0] == 0
    assert shell.out.startswith("mnist5: tiny:"), "a file of that name is meant"


def test_no_command_is_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: blip ")
    assert "train methods on an experiment" in shown
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"blip {version('blip-continual')}\n"


def test_claims_come_with_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["claims", "--no-checks", "--out", "judged"]) == 0
    assert capsys.readouterr().out.count("NOT RUN") > 10
    assert PUBLISHED.read_text() == (ROOT / "config/claims.yaml").read_text()


def test_one_epoch_is_no_epochs(shell: Shell) -> None:
    _, lines = shell.train("sgd", "--set", "training.epochs=1")
    assert [line for line in lines if "learned in 1 epoch: " in line]


def test_training_says_what_was_learned_and_ends_with_the_matrix(shell: Shell) -> None:
    status, lines = shell.train("blip")
    assert status == 0
    learned = [line for line in lines if "learned in" in line]
    assert len(learned) == 2
    assert "since learned" not in learned[0]
    assert re.search(
        r"accuracy \d+\.\d%, mean over tasks so far \d+\.\d%, on earlier ones [+-]\d+\.\d points", learned[1]
    )
    assert "of all bits frozen" in learned[1]
    heading, _, first, second = lines[-4:]
    assert heading.split() == ["accuracy", "%", "after", "task", "1", "2", "mean"]
    assert first.startswith("1 digits 0, 1, 2, 3, 4 ")
    assert len(second.split()) == len(first.split()) + 1
    assert len(shell.out.splitlines()) == 1, "standard output is the run folder alone"


def test_results_are_printed_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        write_run(tmp_path, method="blip", seed=seed, R=[[0.99], [0.98 + seed / 1000, 0.99]])
        write_run(tmp_path, method="sgd", seed=seed, R=[[0.99], [0.6 + seed / 1000, 0.99]])
    assert main(["results", str(tmp_path)]) == 0
    screen = capsys.readouterr().out
    rows = {line.split()[0]: line for line in screen.splitlines() if line.startswith(("blip", "sgd"))}
    assert " 98.60 ± 0.08 *" in rows["blip"]
    assert "*" not in rows["sgd"]
    assert "Highest average accuracy" in screen
    assert "Seeds of every method: 0, 1, 2, 3, 4 (n = 5)" in screen


def test_a_hostile_name_cannot_colour_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, tasks=[{"name": "\x1b[31mred", "outputs": 2, "trained": 1}], R=[[0.9]])
    main(["results", str(tmp_path)])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("blip tr", {"train"}),
        ("blip train mni", {"mnist2", "mnist5"}),
        ("blip train ./my", {"./my.yaml"}),
        ("blip train mnist5 --method sg", {"sgd", "sgd-frozen"}),
        ("blip train mnist5 --met", {"--method"}),
        ("blip schema s", {"suite"}),
    ],
)
def test_bash_completes(typed: str, completed: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.yaml").touch()
    (tmp_path / "blip.bash").write_text(script("bash", capsys))
    commands = [
        f"source {tmp_path / 'blip.bash'}",
        f"COMP_WORDS=({typed})",
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))",
        "_shtab_blip",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    run = subprocess.run(["bash", "-c", "; ".join(commands)], cwd=tmp_path, capture_output=True, text=True)
    assert set(run.stdout.split()) == completed, run.stderr


def test_zsh_gets_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("zsh", capsys).startswith("#compdef blip")


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    return capsys.readouterr().out
