"""`blip audit`: that it sees a run whose anchors moved further than they may."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from run_folders import sign
from shell import Shell, interrupt_after, refused
from torch import Tensor

from blip.core.formulas import allowed_range


@pytest.fixture
def run(shell: Shell) -> Path:
    """A finished run of BLIP."""
    shell.train("blip", "--set", "training.epochs=3")
    return shell.runs / "tiny" / "blip" / "seed0"


def change(folder: Path, task: int, column: str, value: float) -> None:
    """Change what a run recorded of its first layer, as the run itself would have written it."""
    table = pd.read_csv(folder / "moves.csv")
    table.loc[table.index[table["task_learned"] == task][0], column] = value
    rewrite(folder, table)


def rewrite(folder: Path, table: pd.DataFrame) -> None:
    table.to_csv(folder / "moves.csv", index=False)
    sign(folder)


def test_a_run_of_blip_kept_its_promise_in_every_task_and_layer(shell: Shell, run: Path) -> None:
    assert shell("audit", shell.runs) == (0, [])
    *lines, last = shell.out.splitlines()
    assert last == "PASS: 4 of 4 kept", "two tasks, and one layer with weights and biases"
    assert len(lines) == 4
    moves = pd.read_csv(run / "moves.csv")
    assert moves["largest_move"].between(0, 1).all()
    assert (moves.groupby("task_learned")["largest_move"].max() > 0.01).all(), "it did move"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("largest_move", 1.001, "largest move 1.001 of 1 allowed"), ("lost_bits", 2, "2 parameters lost frozen bits")],
)
def test_a_broken_promise_is_seen(column: str, value: float, said: str, shell: Shell, run: Path) -> None:
    change(run, 1, column, value)
    status, _ = shell("audit", run)
    assert status == 1
    failed = [line for line in shell.out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2
    assert said in failed[0]
    assert "tiny/blip/seed0  task 2" in failed[0]
    assert failed[1] == "FAIL: 3 of 4 kept"


def shifted(anchor: Tensor, bits: Tensor, bound: float, max_bits: int) -> tuple[Tensor, Tensor]:
    """The range around a place two steps of B·2^-k above the anchor."""
    return allowed_range((anchor + 2 * bound * torch.exp2(-bits.float())).clamp(-bound, bound), bits, bound, max_bits)


def test_a_range_in_the_wrong_place_is_seen(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although all parameters stay in it."""
    monkeypatch.setattr("blip.core.formulas.allowed_range", shifted)
    shell.train("blip", "--set", "training.epochs=3")
    assert shell("audit", shell.runs)[0] == 1
    assert pd.read_csv(shell.runs / "tiny/blip/seed0/moves.csv")["largest_move"].max() > 1.9


def test_what_a_resumed_task_moved_is_measured_from_its_start(
    shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (run / "moves.csv").read_bytes()
    shutil.rmtree(shell.runs)
    with monkeypatch.context() as stopped:
        interrupt_after(5, stopped)
        assert shell.train("blip", "--set", "training.epochs=3")[0] != 0
    _, said = shell.train("blip", "--set", "training.epochs=3")
    assert any("going on at task 2, epoch 3" in line for line in said)
    assert (run / "moves.csv").read_bytes() == whole


def test_every_task_and_layer_must_be_there_as_it_was_written(shell: Shell, run: Path) -> None:
    table = pd.read_csv(run / "moves.csv")
    table.drop(index=3).to_csv(run / "moves.csv", index=False)
    assert "seed0: moves.csv was changed" in refused(shell("audit", run))
    rewrite(run, table.drop(index=3))
    assert f"expected every task and layer, found no task 1 of {table['layer'][3]}" in refused(shell("audit", run))


def test_runs_that_cannot_be_audited_are_refused(shell: Shell, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["tables"] = [table for table in record["tables"] if table["name"] != "moves"]
    (run / "run.json").write_text(json.dumps(record))
    assert "tiny/blip/seed0: no moves.csv: train it again" in refused(shell("audit", run))
    shell.train("sgd", "--set", "training.epochs=1")
    assert "no run freezes bits" in refused(shell("audit", shell.runs / "tiny" / "sgd"))
