"""Variants of an experiment beside it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_folders import forgetting_matrix, write_run
from shell import Shell, refused

from blip.errors import BlipError
from blip.results import load_runs
from blip.results.statistics import paired
from blip.results.variants import variants

EXACT, SAME = ({"of": "mnist5", "settings": {"methods.ewc.fisher": fisher}} for fisher in ("exact", "same"))
MERGE = {"of": "mnist5", "settings": {"methods.imm-mode.merge": False}}


def as_variant(variant: dict[str, Any] | None) -> dict[str, Any]:
    """What `run_folders.write_run` needs for a run of a variant."""
    return {"config": {"variant": variant}} if variant else {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """EWC with two Fishers, of which one forgets less, and a variant that differs in nothing."""
    for seed in range(5):
        for name, variant, drop in (
            ("mnist5", None, 0.1),
            ("mnist5.fisher-exact", EXACT, 0.02),
            ("mnist5.fisher-same", SAME, 0.1),
        ):
            R = forgetting_matrix(3, 0.9, drop, seed + (drop == 0.02) * 90)
            write_run(tmp_path, name, "ewc", seed, R, **as_variant(variant))
    return tmp_path


def test_variants_are_compared_with_the_experiment_as_it_is(root: Path) -> None:
    table = variants(load_runs([root])).set_index("variant")
    assert list(table.index) == ["", "fisher-exact", "fisher-same"]
    assert (table["n"] == 5).all()
    assert table.loc["", "acc_difference":].isna().all()
    assert table.loc["fisher-same", ["acc_difference", "forgetting_difference"]].tolist() == [0, 0]
    row = table.loc["fisher-exact"]
    assert row["forgetting_high"] < 0 < row["acc_low"]
    assert row["bwt_published"] == pytest.approx(row["bwt"] * 2 / 3)

    accuracies = {
        name: [sum(forgetting_matrix(3, 0.9, drop, seed + (drop == 0.02) * 90)[-1]) / 3 for seed in range(5)]
        for name, drop in (("as it is", 0.1), ("exact", 0.02))
    }
    expected = paired([x - y for x, y in zip(accuracies["exact"], accuracies["as it is"], strict=True)])
    assert row["acc_difference"] == pytest.approx(expected.mean)
    assert (row["acc_low"], row["acc_high"]) == pytest.approx(expected.interval)
    assert expected.p_t <= row["acc_p"] <= 4 * expected.p_t, "Holm over four comparisons"


def test_the_command_prints_and_writes_the_table(root: Path, shell: Shell, tmp_path: Path) -> None:
    assert shell("variants", root, "--out", tmp_path / "out") == (0, [])
    assert "| mnist5       | ewc      | fisher-exact | 5   |" in shell.out
    assert (tmp_path / "out" / "variants.md").read_text() in shell.out
    assert len(pd.read_csv(tmp_path / "out" / "variants.csv")) == 3


def test_runs_without_variants_are_refused(tmp_path: Path, shell: Shell) -> None:
    write_run(tmp_path, "mnist5", "ewc")
    assert "no variants: expected" in refused(shell("variants", tmp_path, "--out", tmp_path / "out"))
    write_run(tmp_path, "mnist5.merge-false", "imm-mode", **as_variant(MERGE))
    assert "mnist5: no runs of imm-mode" in refused(shell("variants", tmp_path, "--out", tmp_path / "out"))


def test_two_seeds_tell_nothing(tmp_path: Path, shell: Shell) -> None:
    for seed in range(2):
        for name, variant in (("mnist5", None), ("mnist5.fisher-exact", EXACT)):
            write_run(tmp_path, name, "ewc", seed, **as_variant(variant))
    shell("variants", tmp_path, "--out", tmp_path / "out")
    assert "+0.00; too few seeds in common (2) to tell" in shell.out


def test_n_is_of_all_runs_and_pairs_are_those_with_a_seed_in_common(tmp_path: Path, shell: Shell) -> None:
    for seed in range(6):
        write_run(tmp_path, "mnist5.fisher-exact", "ewc", seed, **as_variant(EXACT))
    for seed in (0, 1):
        write_run(tmp_path, "mnist5", "ewc", seed)
    shell("variants", tmp_path, "--out", tmp_path / "out")
    assert "too few seeds in common (2) to tell" in shell.out
    assert "| fisher-exact | 6   |" in shell.out


def test_pairs_are_counted_where_they_are_fewer_than_the_runs(root: Path, shell: Shell, tmp_path: Path) -> None:
    write_run(root, "mnist5.fisher-exact", "ewc", 7, **as_variant(EXACT))
    shell("variants", root, "--out", tmp_path / "out")
    exact, same = (next(line for line in shell.out.splitlines() if kind in line) for kind in ("exact", "same"))
    assert exact.count("(5 pairs)") == 2
    assert "pairs)" not in same


def test_what_else_variants_differ_in_is_told(root: Path, shell: Shell, tmp_path: Path) -> None:
    for seed in range(5):
        config = {"variant": SAME, "training": {"lr": 0.5}}
        write_run(root, "mnist5.fisher-same", "ewc", seed, config=config)
        write_run(root, "mnist5", "ewc", seed, config={"training": {"lr": 0.1}})
    shell("variants", root, "--out", tmp_path / "out")
    assert "* Warning: ewc of mnist5.fisher mixes 2 values of training.lr: 0.1, 0.5" in shell.out


def test_variants_on_other_data_than_the_experiment_as_it_is_are_told(tmp_path: Path, shell: Shell) -> None:
    write_run(tmp_path, "mnist5", "ewc", data="a")
    write_run(tmp_path, "mnist5.fisher-exact", "ewc", data="b", stand_in=True, **as_variant(EXACT))
    shell("variants", tmp_path, "--out", tmp_path / "out")
    assert "* Warning: mnist5.fisher mixes 2 kinds of data: real, stand-in" in shell.out
    assert "* Warning: mnist5.fisher has other data than mnist5: ewc seed 0" in shell.out


def test_runs_that_vary_other_settings_are_not_of_one_experiment(tmp_path: Path) -> None:
    write_run(tmp_path, "mnist5.strength-1", "ewc", config={"variant": {"of": "mnist5", "settings": {"a.strength": 1}}})
    write_run(tmp_path, "mnist5.strength-1", "mas", config={"variant": {"of": "mnist5", "settings": {"b.strength": 1}}})
    with pytest.raises(BlipError, match=r"mas/seed0: varies other settings than other runs of mnist5\.strength-1"):
        load_runs([tmp_path])
