"""Run folders in, tables and figures out."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from run_folders import forgetting_matrix, sign, write_run
from scipy.stats import ttest_rel

from blip.errors import BlipError
from blip.record import TaskRecord
from blip.results import find_runs, load_runs, mixed_runs, run_metrics, write_tables
from blip.results.bit_string import bit_digits, choose_parameter, draw_bit_string, named_trace, traced_rows
from blip.results.course import draw_course
from blip.results.figures import draw_average, draw_forgetting, write_figures
from blip.results.loading import method_order
from blip.results.markup import latex_escape
from blip.results.scenario import mixed_settings, settings_by_method
from blip.results.style import luminance, method_looks
from blip.results.tables import method_table

BEST, WORST = [[0.9], [0.85, 0.9]], [[0.9], [0.5, 0.8]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two methods, two seeds, two tasks; blip is the better one."""
    for seed in (0, 1):
        write_run(tmp_path / "runs", method="blip", seed=seed, R=BEST)
        write_run(tmp_path / "runs", method="sgd", seed=seed, R=WORST)
    return tmp_path / "runs"


def one_line(error: pytest.ExceptionInfo[BlipError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# Run folders


def test_runs_are_found_once_and_unfinished_ones_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = root / "mnist5/sgd/seed1"
    (unfinished / "run.json").unlink()
    found = find_runs([root, root / "mnist5", root / "mnist5/blip/seed0"])
    assert [f"{f.parent.name}/{f.name}" for f in found] == ["blip/seed0", "blip/seed1", "sgd/seed0"]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert str(unfinished) in warnings[0]
    assert "unfinished" in warnings[0]


def test_long_tables(root: Path) -> None:
    runs = load_runs([root])
    assert runs.methods() == ["blip", "sgd"]
    assert runs.runs[["tasks", "commit", "torch"]].drop_duplicates().values.tolist() == [[2, "c0ffee", "2.6"]]
    assert set(runs.tables) == {"accuracy", "history", "cost", "bits", "trace"}
    for frame in runs.tables.values():
        assert list(frame.columns[:3]) == ["experiment", "method", "seed"]
    assert set(runs.tables["bits"]["method"]) == {"blip"}
    metrics = run_metrics(runs).set_index(["method", "seed"])
    assert metrics.loc[("sgd", 0), "acc"] == pytest.approx(0.65)
    assert metrics.loc[("sgd", 0), "minutes"] == 2
    assert metrics.loc[("sgd", 0), "peak_memory_mb"] == 512
    assert pd.isna(metrics.loc[("sgd", 0), "capacity"])
    assert metrics.loc[("blip", 0), "capacity"] == pytest.approx((5 + 3 + 7 + 0.4 * 3) / 3 / 20)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("accuracy.csv", "task_learned,task,accuracy\n0,0,0.5\n", "missing: loss, n"),
        ("accuracy.csv", "task_learned,task,accuracy,loss,n\n0,0,0.5,1,9\n", "2 tasks as in run.json"),
        ("accuracy.csv", "task_learned,task,accuracy,loss,n\n1,0,0.5,1,9\n", "one accuracy for every"),
        ("accuracy.csv", "task_learned,task,accuracy,loss,n\n0,0,90,1,9\n", "expected shares from 0 to 1"),
        ("accuracy.csv", "task_learned,task,accuracy,loss,n\n0,0,high,1,9\n", "high"),
        ("accuracy.csv", "", "expected the columns"),
        ("history.csv", "task,epoch\n", "missing: lr"),
        ("cost.csv", b"\xff\xfe\x00", "expected the columns"),
        ("trace.csv", "task_learned\n0,1\n2\n", "expected the columns"),
        ("run.json", "{", "expected the record of a run"),
        ("run.json", "[]", "expected the record of a run"),
        ("run.json", '{"format": 2, "provenance": {}}', "experiment: this key is missing"),
        ("run.json", '{"format": 1}', "format 1, expected 2"),
        ("run.json", '{"experiment": "mnist5", "max_bits": 20}', "format 1, expected 2: train it again"),
    ],
)
def test_broken_files(root: Path, file: str, content: str | bytes, expected: str) -> None:
    path = root / "mnist5/blip/seed0" / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BlipError) as error:
        load_runs([root])
    message = one_line(error)
    assert message.startswith(str(path))
    assert expected in message


def test_missing_file_and_missing_folder(root: Path, tmp_path: Path) -> None:
    (root / "mnist5/blip/seed0/history.csv").unlink()
    with pytest.raises(BlipError, match=r"history\.csv"):
        load_runs([root])
    with pytest.raises(BlipError, match="no such folder"):
        load_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BlipError, match="no finished runs"):
        load_runs([tmp_path / "empty"])


@pytest.mark.parametrize("table", ["bits", "cost", "history"])
def test_files_that_are_not_as_the_run_wrote_them(root: Path, table: str) -> None:
    file = root / "mnist5/blip/seed0" / f"{table}.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(BlipError, match=rf"blip/seed0: {table}\.csv was changed: expected what its run wrote"):
        load_runs([root])
    sign(file.parent)
    load_runs([root])


def test_times_that_are_no_numbers(root: Path) -> None:
    file = root / "mnist5/blip/seed0/cost.csv"
    file.write_text(file.read_text().replace("30.0", "inf"))
    sign(file.parent)
    with pytest.raises(BlipError, match=r"blip/seed0/cost\.csv: seconds: expected a number of each phase"):
        load_runs([root])


def test_orders_that_differ_between_seeds_are_said(tmp_path: Path) -> None:
    pages = []
    for names in ("abc", "abc"), ("abc", "bca"):
        for seed, order in enumerate(names):
            tasks = [TaskRecord(name=name, outputs=2, trained=8) for name in order]
            write_run(tmp_path / "runs", seed=seed, tasks=tasks)
        pages.append(write_tables(load_runs([tmp_path / "runs"]), tmp_path / "out"))
    said = "* Seeds differ in their order of tasks: task 1 is the first that each learned, not one and the same\n"
    assert [said in page for page in pages] == [False, True]


def test_methods_of_one_seed_that_learned_other_data_are_said(tmp_path: Path) -> None:
    for method, seed, data in (("blip", 0, "a"), ("sgd", 0, "a"), ("ewc", 0, "b"), ("blip", 1, "c"), ("sgd", 1, "c")):
        write_run(tmp_path / "runs", method=method, seed=seed, data=data)
    text = write_tables(load_runs([tmp_path / "runs"]), tmp_path / "out")
    said = [line for line in text.splitlines() if "other data" in line]
    assert said == ["* Warning: mnist5 has other data of seed 0 for blip, sgd than for ewc"]


def test_same_run_twice(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    with pytest.raises(BlipError, match="the same run as"):
        load_runs([tmp_path])


def test_mixed_runs(root: Path) -> None:
    assert mixed_runs(load_runs([root])) == []
    write_run(root, method="ewc", commit="abc", cpu="another CPU", products="onednn", R=BEST, stand_in=True)
    assert mixed_runs(load_runs([root])) == [
        "mnist5 mixes 2 commits: abc, c0ffee",
        "mnist5 mixes 2 CPU models: a CPU, another CPU",
        "mnist5 mixes 2 kinds of data: real, stand-in",
        "mnist5 mixes 2 libraries of float32 products: default, onednn",
    ]


def test_settings_that_runs_do_not_share_are_said(tmp_path: Path) -> None:
    def write(method: str, seed: int, epochs: int, hidden: list[int], **settings: float) -> None:
        config = {
            "data": {"sources": [{"name": "mnist", "permutations": 10}]},
            "network": {"hidden": hidden},
            "training": {"epochs": epochs},
            "method": {"name": method, **settings},
            "seed": seed,
        }
        write_run(tmp_path / "runs", method=method, seed=seed, config=config)

    write("sgd", 0, 5, [9])
    write("blip", 0, 5, [9], f_prior=1e-16)
    write("blip", 1, 5, [9], f_prior=1e-16, n=2.0)  # which an older version did not have
    runs = load_runs([tmp_path])
    assert mixed_settings(runs) == settings_by_method(runs) == []

    write("blip", 2, 20, [9, 9], f_prior=1e-15)
    runs = load_runs([tmp_path])
    assert mixed_settings(runs) == [
        "blip of mnist5 mixes 2 values of method.f_prior: 1e-15, 1e-16",
        "blip of mnist5 mixes 2 values of network.hidden: [9, 9], [9]",
        "blip of mnist5 mixes 2 values of training.epochs: 20, 5",
    ]
    assert settings_by_method(runs) == [
        "network.hidden is [9, 9] for blip; [9] for blip, sgd",
        "training.epochs is 20 for blip; 5 for blip, sgd",
    ]
    text = write_tables(runs, tmp_path / "out")
    assert "Warning: blip of mnist5 mixes 2 values of training.epochs" in text
    assert "training.epochs is 20 for blip; 5 for blip, sgd" in text


def test_seeds_of_plasticity_are_said_where_they_are_fewer(root: Path) -> None:
    write_run(root, method="single-task", seed=0, R=BEST)
    write_run(root, method="sgd", seed=2, R=BEST)
    note = "Plasticity is over the seeds of single-task alone: blip 1, sgd 1"
    assert note in write_tables(load_runs([root]), root / "tables")
    for seed in (1, 2):
        write_run(root, method="single-task", seed=seed, R=BEST)
    assert "Plasticity is over" not in write_tables(load_runs([root]), root / "tables")


def test_names_and_signs_are_set_right_in_latex(root: Path) -> None:
    for seed in range(6):
        write_run(root, method="imm-mode", seed=seed, R=[[0.9], [0.5 + seed / 1000, 0.8]])
        write_run(root, method="blip", seed=seed, R=[[0.9], [0.4, 0.8]])
    write_tables(load_runs([root]), root / "tables")
    text = (root / "tables/comparison.tex").read_text()
    assert "& imm-mode &" in text
    assert "imm-mode is better" in text
    assert "$-$5.1" in text
    assert "$<$ 0.001" in text
    assert not re.search(r"(?<!\$)<", text)


def test_order_of_methods() -> None:
    methods = method_order(["zeta", "joint", "sgd", "alpha", "blip", "sgd"])
    assert methods == ["blip", "sgd", "joint", "alpha", "zeta"]


# Tables


def cells(markdown: str, method: str) -> list[str]:
    row = next(line for line in markdown.splitlines() if line.startswith(f"| {method} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_markdown_table(root: Path, tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.6, 0.7)):
        write_run(root, method="ewc", seed=seed, R=[[0.9], [accuracy, accuracy]])
    text = write_tables(load_runs([root]), tmp_path / "out")
    assert cells(text, "method") == [
        *("method", "n", "ACC %", "BWT %", "BWT (published ÷T) %", "forgetting %", "capacity %", "minutes"),
    ], "neither memory nor plasticity: nothing is known of them"
    assert cells(text, "ewc")[:3] == ["ewc", "2", "65.00 ± 7.07"]
    acc, bwt, published, forgetting, capacity, minutes = cells(text, "blip")[2:]
    assert (acc, bwt, published, forgetting) == ("87.50 ± 0.00", "-5.00 ± 0.00", "-2.50 ± 0.00", "5.00 ± 0.00")
    assert capacity.startswith("27.00")
    assert minutes == "2.0 ± 0.0"
    assert "**" not in text.split("| method")[1].split("\n\n")[0], "two seeds tell nothing"
    assert "Fewer than 5 seeds: too few for an interval" in text
    assert cells(text, "sgd")[6] == "–"
    assert "Highest average accuracy after 2 tasks: blip (87.50 %)" in text
    assert "forgets most: sgd (-40.00 points)" in text
    assert "Seeds of every method: 0, 1 (n = 2)" in text
    assert "Epochs trained per task: 8 to 9" in text
    assert "stand-in" not in text
    assert (tmp_path / "out/tables.md").read_text() == text


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Six seeds: blip and ewc about equal, sgd clearly worse, single-task 2 points better at each new task."""
    for seed in range(6):
        noise = 0.01 * np.random.default_rng(seed).normal(size=3)
        for method, last in (("blip", 0.8 + noise[0]), ("ewc", 0.8 + noise[1]), ("sgd", 0.6 + noise[2])):
            write_run(tmp_path / "many", method=method, seed=seed, R=[[0.9], [last, 0.9]])
        write_run(tmp_path / "many", method="single-task", seed=seed, R=[[0.92], [0.92, 0.92]])
    return tmp_path / "many"


def test_bold_are_all_that_cannot_be_told_from_the_best(many: Path, tmp_path: Path) -> None:
    text = write_tables(load_runs([many]), tmp_path / "out")
    assert [cells(text, method)[2].startswith("**") for method in ("blip", "ewc", "sgd", "single-task")] == [
        *(True, True, False, False),
    ]
    table = pd.read_csv(tmp_path / "out/tables/mnist5.csv").set_index("method")
    assert table["acc_percent_best"].tolist() == [True, True, False, False]
    low, high = (table.loc["sgd", f"acc_percent_{end}"] for end in ("low", "high"))
    assert low < table.loc["sgd", "acc_percent_mean"] < high
    assert f"[{low:.2f}, {high:.2f}]" in cells(text, "sgd")[2]
    assert table.loc["single-task", ["acc_percent_low", "acc_percent_high"]].tolist() == pytest.approx([92, 92])


def test_four_seeds_tell_no_best(many: Path, tmp_path: Path) -> None:
    four = [many / f"mnist5/{method}/seed{seed}" for method in ("blip", "ewc", "sgd") for seed in range(4)]
    text = write_tables(load_runs(four), tmp_path / "out")
    assert "**" not in text.split("| method")[1].split("\n\n")[0]
    assert not pd.read_csv(tmp_path / "out/tables/mnist5.csv")["acc_percent_best"].any()
    assert "* Fewer than 5 seeds: too few for an interval or to tell which method is best: nothing is bold" in text
    latex = (tmp_path / "out/tables/mnist5.tex").read_text()
    assert "95" not in latex.split(r"\caption{")[1].split("Seeds of")[0], "no interval is promised"


@pytest.mark.parametrize("last", [0.7, 0.85])
def test_bold_is_among_the_methods_with_five_seeds_and_says_so(last: float, many: Path, tmp_path: Path) -> None:
    for seed in range(4):
        write_run(many, method="lwf", seed=seed, R=[[0.9], [last, 0.9]])
    text = write_tables(load_runs([many]), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/tables/mnist5.csv").set_index("method")
    assert table.index[table["acc_percent_best"]].tolist() == ["blip", "ewc"]
    assert "* Fewer than 5 seeds of lwf: too few for an interval or to be bold, whatever their means\n" in text
    (said,) = [line for line in text.splitlines() if line.startswith("Of the methods with 5 seeds or more: highest")]
    assert "lwf" not in said
    assert (
        "bold: the best of a column of methods with 5 seeds or more" in (tmp_path / "out/tables/mnist5.tex").read_text()
    )


def test_five_seeds_that_are_others_than_the_bests_tell_nothing(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path / "runs", method="blip", seed=seed, R=[[0.9], [0.8, 0.9]])
        write_run(tmp_path / "runs", method="sgd", seed=seed + 4, R=[[0.9], [0.5, 0.9]])
    assert not method_table(load_runs([tmp_path / "runs"]))["acc_percent_best"].any()


def test_few_seeds_of_a_reference_concern_no_bold(many: Path, tmp_path: Path) -> None:
    for seed in (4, 5):
        shutil.rmtree(many / f"mnist5/single-task/seed{seed}")
    text = write_tables(load_runs([many]), tmp_path / "out")
    assert cells(text, "blip")[2].startswith("**")
    assert "* Fewer than 5 seeds of single-task: too few for an interval\n" in text


def test_a_method_that_is_better_on_the_seeds_in_common_is_not_called_worse(tmp_path: Path) -> None:
    """sgd has six easier seeds more, and so the best mean; ewc is better with each seed that both have."""
    for seed in range(12):
        last = (0.7 if seed < 6 else 0.9) + 0.001 * seed
        write_run(tmp_path / "runs", method="sgd", seed=seed, R=[[0.9], [last, 0.9]])
    for seed in range(6):
        write_run(tmp_path / "runs", method="ewc", seed=seed, R=[[0.9], [0.75 + 0.001 * seed, 0.9]])
    assert method_table(load_runs([tmp_path / "runs"]))["acc_percent_best"].all()


def test_linked_folders_of_runs_are_found_and_each_run_once(tmp_path: Path) -> None:
    write_run(tmp_path / "scratch", seed=1)
    write_run(tmp_path / "runs", seed=0)
    (tmp_path / "runs/more").symlink_to(tmp_path / "scratch")
    (tmp_path / "runs/again").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch/mnist5/back").symlink_to(tmp_path / "runs")
    assert sorted(load_runs([tmp_path / "runs"]).runs["seed"]) == [0, 1]


def test_plasticity_is_the_difference_to_a_network_of_its_own(many: Path) -> None:
    metrics = run_metrics(load_runs([many])).set_index(["method", "seed"])["plasticity"]
    assert metrics["blip"].tolist() == pytest.approx([-0.02] * 6)
    assert metrics["single-task"].tolist() == [0] * 6
    alone = run_metrics(load_runs([many / "mnist5/blip", many / "mnist5/single-task/seed3"]))
    assert alone.set_index(["method", "seed"])["plasticity"]["blip"].notna().tolist() == [s == 3 for s in range(6)]


def test_blip_is_compared_with_every_other_method_by_seed(many: Path, tmp_path: Path) -> None:
    write_tables(load_runs([many]), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/comparison.csv").set_index(["metric", "method"])
    assert len(table) == 2 * 3
    row = table.loc["acc", "sgd"]
    metrics = run_metrics(load_runs([many])).set_index(["method", "seed"])["acc"]
    reference = ttest_rel(metrics["blip"], metrics["sgd"])
    assert row["n"] == 6
    assert row["p_t"] == pytest.approx(reference.pvalue)
    assert row["p_t_holm"] == pytest.approx(6 * row["p_t"]) or row["p_t_holm"] > row["p_t"]
    assert (row["low"], row["high"]) == pytest.approx(tuple(reference.confidence_interval()))
    assert row["p_sign_flip"] == 2 / 2**6
    assert table["verdict"].to_dict() == {
        ("acc", "ewc"): "cannot be told apart",
        ("acc", "sgd"): "blip is better",
        ("acc", "single-task"): "single-task is better",
        ("forgetting", "ewc"): "cannot be told apart",
        ("forgetting", "sgd"): "blip is better",
        ("forgetting", "single-task"): "single-task is better",
    }
    assert "| mnist5       | acc        | sgd " in (tmp_path / "out/comparison.md").read_text()
    assert r"mnist5 & acc & sgd & 6 & +" in (tmp_path / "out/comparison.tex").read_text()


def test_a_comparison_of_stand_in_data_says_so(tmp_path: Path) -> None:
    for experiment, method in (("a", "blip"), ("a", "sgd"), ("b", "blip"), ("b", "sgd")):
        write_run(tmp_path / "runs", experiment, method, stand_in=experiment == "b")
    write_tables(load_runs([tmp_path / "runs"]), tmp_path / "out")
    compared = (tmp_path / "out/comparison.md").read_text()
    assert re.findall(r"^\| (\w+(?: \(stand-in data\))?) +\| acc", compared, re.MULTILINE) == ["a", "b (stand-in data)"]


def test_too_few_seeds_to_compare_are_said(root: Path, tmp_path: Path) -> None:
    text = write_tables(load_runs([root]), tmp_path / "out")
    assert "too few seeds in common (2) to tell" in text
    assert "in points; too few seeds to test them." in text
    assert "95 % t interval" not in text
    assert pd.read_csv(tmp_path / "out/comparison.csv")["low"].isna().all()
    alone = write_tables(load_runs([root / "mnist5/sgd"]), tmp_path / "alone")
    assert "BLIP beside" not in alone
    assert not list((tmp_path / "alone").glob("comparison.*")), "no file with nothing in it"


@pytest.mark.parametrize(("seeds", "told"), [(4, False), (5, True)])
def test_fewer_than_five_seeds_tell_nothing(seeds: int, told: bool, tmp_path: Path) -> None:
    """However clear the difference looks: no interval, no p, nothing bold, and words that say so."""
    for seed in range(seeds):
        for method, last in (("blip", 0.8), ("sgd", 0.5)):
            write_run(tmp_path / "runs", method=method, seed=seed, R=[[0.9], [last + 0.001 * seed, 0.9]])
    text = write_tables(load_runs([tmp_path / "runs"]), tmp_path / "out")
    assert (f"too few seeds in common ({seeds}) to tell" in text) == (not told)
    assert cells(text, "blip")[2].startswith("**") == told
    compared = pd.read_csv(tmp_path / "out/comparison.csv")[["low", "high", "p_t", "p_t_holm"]]
    assert compared.notna().all(axis=None) == told
    assert compared.notna().any(axis=None) == told


def test_the_time_of_short_runs_is_in_seconds(tmp_path: Path) -> None:
    write_run(tmp_path, R=[[0.9]])
    text = write_tables(load_runs([tmp_path]), tmp_path / "out")
    assert (cells(text, "method")[-1], cells(text, "blip")[-1]) == ("seconds", "60.0")
    assert pd.read_csv(tmp_path / "out/tables/mnist5.csv")["minutes_mean"].tolist() == [1]


def test_references_are_shown_and_not_compared(root: Path, tmp_path: Path) -> None:
    for name in ("single-task", "joint"):
        write_run(root, method=name, R=[[0.9], [0.9, 0.9]])
    text = write_tables(load_runs([root]), tmp_path / "out")
    assert cells(text, "joint")[2:4] == cells(text, "single-task")[2:4] == ["90.00", "0.00"]
    assert cells(text, "blip")[2].startswith("87.50")
    assert "Highest average accuracy after 2 tasks: blip (87.50 %)" in text
    assert "keeps best what it learned: blip" in text
    alone = write_tables(load_runs([root / "mnist5/joint"]), tmp_path / "alone")
    assert "Average accuracy after 2 tasks: joint (90.00 %)" in alone


def test_notes_say_what_is_known_in_testing_and_which_settings_are_no_defaults(root: Path, tmp_path: Path) -> None:
    ewc = {"name": "ewc", "version": 2, "strength": 100.0, "form": "online"}
    config = {"heads": "shared", "method": ewc}
    write_run(root, method="ewc", config=config, defaults={"strength": 5000.0, "form": "online"})
    gpm = {"name": "gpm", "threshold": [0.95, 0.99]}
    write_run(root, method="gpm", config={"heads": "shared", "method": gpm}, defaults={"threshold": [0.97]})
    text = write_tables(load_runs([root]), tmp_path / "out")
    assert "* One head for all tasks, which are not told apart in testing" in text
    changed = "ewc strength 100 (5000); gpm threshold 0.95 / 0.99 (0.97)"
    assert f"* Settings that are not a method's defaults (in brackets): {changed}\n" in text
    unknown = write_tables(load_runs([root / "mnist5/blip"]), tmp_path / "alone")
    assert "Settings" not in unknown


def test_files_of_tables(root: Path, tmp_path: Path) -> None:
    write_run(root, experiment="one_task", method="sgd", R=[[0.9]])
    write_tables(load_runs([root]), tmp_path)
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 4 * 3 + 1
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 5
    assert {"mean", "std", "n", "low", "high"} <= set(pd.read_csv(tmp_path / "summary.csv"))
    table = pd.read_csv(tmp_path / "tables/mnist5.csv").set_index("method")
    assert table.loc["blip", "acc_percent_mean"] == pytest.approx(87.5)
    assert table.loc["sgd", "minutes_std"] == 0
    single = (tmp_path / "tables/one_task.md").read_text()
    assert cells(single, "sgd") == ["sgd", "1", "90.00", "60.0"]
    assert "Average accuracy after 1 task: sgd (90.00 %)." in single


def test_latex_table(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path, "my_set", "blip", seed, BEST, stand_in=True)
        write_run(tmp_path, "my_set", "my_way", seed, WORST, stand_in=True)
    write_tables(load_runs([tmp_path]), tmp_path / "out")
    text = (tmp_path / "out/tables/my_set.tex").read_text()
    assert r"\caption{my\_set (stand-in data): mean $\pm$ standard" in text
    assert r"blip & 5 & \textbf{87.50 $\pm$ 0.00} & \textbf{$-$5.00 $\pm$ 0.00} &" in text
    assert r"my\_way & 5 & 65.00 $\pm$ 0.00 & $-$40.00" in text
    assert r"\scriptsize [$-$5.00, $-$5.00]" in text
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {row.count("&") for row in rows} == {7}
    assert all(row.endswith(r" \\") for row in rows)
    assert not re.search(r"(?<!\\)[_%#]", text)


def test_latex_escape() -> None:
    assert latex_escape(r"a_b & 5% {x}\~") == (r"a\_b \& 5\% \{x\}\textbackslash{}\textasciitilde{}")


def test_ties_are_named_and_warnings_stand_below(root: Path, tmp_path: Path) -> None:
    write_run(root, method="ewc", R=BEST, commit="abc")
    text = write_tables(load_runs([root]), tmp_path / "out")
    assert "blip and ewc (87.50 %)" in text
    write_run(root, method="lwf", R=BEST)
    assert "blip, ewc and lwf (87.50 %)" in write_tables(load_runs([root]), tmp_path / "three")
    for method in ("si", "mas"):
        write_run(root, method=method, R=BEST)
    assert "Highest average accuracy after 2 tasks: 5 methods (87.50 %)" in write_tables(load_runs([root]), tmp_path)
    assert "Seeds of blip: 0, 1 (n = 2); ewc: 0 (n = 1); sgd: 0, 1 (n = 2)" in text
    assert "Warning: mnist5 mixes 2 commits: abc, c0ffee" in text


# Figures


def test_figures(tmp_path: Path) -> None:
    for method, drop in (("blip", 0.01), ("sgd", 0.1)):
        write_run(tmp_path, method=method, R=forgetting_matrix(3, 0.95, drop, seed=1))
    write_run(tmp_path, "single", "sgd", R=[[0.9]], stand_in=True)
    runs = load_runs([tmp_path])
    paths = write_figures(runs, tmp_path / "out", "2.weight:3")
    expected = {f"mnist5/{n}" for n in ("bit_string", "forgetting", "course", "capacity", "sizes")}
    expected |= {f"{e}/{n}" for e in ("mnist5", "single") for n in ("average", "history", "matrix")}
    assert {str(p.relative_to(tmp_path / "out").with_suffix("")) for p in paths} == expected
    assert len(paths) == 2 * len(expected)
    for path in paths:
        start = {".png": b"\x89PNG", ".pdf": b"%PDF"}[path.suffix]
        assert path.read_bytes().startswith(start)
        assert path.stat().st_size > 2000
    again = write_figures(load_runs([tmp_path / "mnist5", tmp_path / "single"]), tmp_path / "again", "2.weight:3")
    for path, other in zip(paths, again, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name


def test_bands_and_whiskers_are_of_what_was_seen(tmp_path: Path) -> None:
    """From the lowest seed to the highest: an accuracy has no band above 100 %."""
    for seed, last in enumerate((0.8, 0.98, 1.0)):
        write_run(tmp_path, method="sgd", seed=seed, R=[[1.0], [last, 1.0]])
    runs = load_runs([tmp_path])
    looks = method_looks(runs.methods())
    assert accuracies(draw_average(runs, looks)) == pytest.approx((0.9, 1.0))
    assert accuracies(draw_course(runs, looks)) == pytest.approx((1.0, 1.0))
    forgetting = draw_course(runs, looks).axes[2].collections[0].get_paths()[0].vertices[:, 1]
    assert (min(forgetting), max(forgetting)) == pytest.approx((0, 0.2))
    whisker = draw_forgetting(runs, looks).axes[0].lines[0].get_xdata()
    assert (np.nanmin(whisker), np.nanmax(whisker)) == pytest.approx((0, 0.2))


def accuracies(figure: Any) -> tuple[float, float]:
    """Ends of the band in a figure's first panel."""
    band = np.concatenate([path.vertices for path in figure.axes[0].collections[0].get_paths()])[:, 1]
    return band.min(), band.max()


def test_wrong_parameter_lists_right_ones(root: Path, tmp_path: Path) -> None:
    runs = load_runs([root])
    with pytest.raises(BlipError) as error:
        write_figures(runs, tmp_path, "0.weight:77")
    assert "0.weight:0, 0.weight:1" in one_line(error)


@pytest.mark.parametrize(
    ("value", "bound", "frozen", "digits"),
    [
        (-0.75, 1.0, 2, "-0.1100"),
        (0.75 * 0.3, 0.3, 2, "+0.1100"),
        (0.5625, 1.0, 4, "+0.1001"),
        (0.3, 0.3, 1, "+1.0000"),
        (-0.3, 0.3, 4, "-1.0000"),
        (0.0, 0.3, 3, "±0.0000"),
        (0.0, 0.3, 0, "±0.0000"),
    ],
)
def test_bit_digits(value: float, bound: float, frozen: int, digits: str) -> None:
    assert bit_digits(value, bound, frozen, 4) == digits


@given(st.floats(-1, 1), st.integers(1, 20), st.floats(0.01, 2))
def test_bit_digits_are_the_value(share: float, k: int, bound: float) -> None:
    """The digits of what blip.core.formulas gives, in float32, add up to it again."""
    import torch

    from blip.core.formulas import quantise

    theta = torch.tensor(share * bound, dtype=torch.float32).clamp(-bound, bound)
    value = float(quantise(theta, torch.tensor(k, dtype=torch.uint8), bound))
    text = bit_digits(value, bound, k, 20)
    magnitude = int(text[1] + text[3:], 2) / 2**20
    assert set(text[3 + k :]) <= {"0"}
    assert magnitude * bound == pytest.approx(abs(value), rel=1e-6)


@pytest.mark.parametrize(("value", "frozen"), [(0.3, 2), (0.1, 0), (1.5, 1), (0.750001, 2)])
def test_values_that_were_not_consolidated(value: float, frozen: int) -> None:
    with pytest.raises(ValueError, match="is no number of"):
        bit_digits(value, 1.0, frozen, 20)


def test_parameter_that_grew_most_often_first_among_equals() -> None:
    rows = [("a", 0, 1), ("a", 0, 9), ("a", 0, 9), ("b", 1, 0), ("b", 1, 1), ("b", 1, 2)]
    frame = pd.DataFrame(rows, columns=["layer", "index", "frozen_bits"])
    frame["task_learned"] = [0, 1, 2, 0, 1, 2]
    frame["value"] = 0.5
    assert choose_parameter(named_trace(frame)) == "a:0"
    assert choose_parameter(named_trace(frame.assign(value=[0, 0.5, 0.5, 0.5, 0.5, 0.5]))) == "b:1"
    frame.loc[3, "frozen_bits"] = 1  # grows at the same two tasks and never more
    frame.loc[4, "frozen_bits"] = 2
    frame.loc[5, "frozen_bits"] = 3
    assert choose_parameter(named_trace(frame)) == "b:1"


def test_a_parameter_that_is_not_0_is_shown_rather_than_one_that_grew_more(root: Path) -> None:
    rows = [(t, "fc", i, v, 0.5, k, 20) for t, k in enumerate((1, 2)) for i, v in ((0, 0.0), (1, 0.25 * t))]
    rows += [(t, "fc", 2, 0.25, 0.5, 2, 20) for t in (0, 1)]
    for seed, shown in ((0, rows[:4]), (1, rows)):
        frame = pd.DataFrame(
            shown, columns=["task_learned", "layer", "index", "value", "bound", "frozen_bits", "max_bits"]
        )
        frame.to_csv(root / f"mnist5/blip/seed{seed}/trace.csv", index=False)
        sign(root / f"mnist5/blip/seed{seed}")
    found = traced_rows(load_runs([root]))
    assert found is not None
    assert (found["parameter"].iloc[0], found["seed"].iloc[0]) == ("fc:2", 1), "of all seeds the one that is never 0"
    for seed in (0, 1):
        frame.assign(value=0.0).to_csv(root / f"mnist5/blip/seed{seed}/trace.csv", index=False)
        sign(root / f"mnist5/blip/seed{seed}")
    assert draw_bit_string(load_runs([root])) is None, "zeros alone are no picture"
    assert draw_bit_string(load_runs([root]), "fc:0") is not None, "unless asked for"


def texts(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]  # type: ignore[attr-defined]


def test_bit_string_shows_the_run(root: Path, tmp_path: Path) -> None:
    trace = root / "mnist5/blip/seed0/trace.csv"
    trace.write_text(
        "task_learned,layer,index,value,bound,frozen_bits,max_bits\n0,fc,7,-0.25,0.5,1,20\n1,fc,7,-0.125,0.5,3,20\n"
    )
    sign(trace.parent)
    figure = draw_bit_string(load_runs([root]), "fc:7")
    assert figure is not None
    shown = texts(figure)
    assert "−0.250000" in shown
    assert "−0.125000" in shown
    digits = "".join(text for text in shown if text in {"0", "1", "−", "0."})
    assert "−0.1" + "0" * 19 in digits
    assert "−0.01" + "0" * 18 in digits
    figure.draw_without_rendering()
    for text, cell in zip(figure.axes[0].texts, figure.axes[0].collections[0].get_facecolor(), strict=False):
        low, high = sorted(luminance(to_rgb(colour)) for colour in (text.get_color(), cell))
        assert (high + 0.05) / (low + 0.05) >= 4.5, "digits are read"
    frames = [p for p in figure.axes[0].patches if not p.get_fill()]
    assert len(frames) == 1  # the first bit was frozen as 1 and is 0 after the carry
    assert "seed 0" in figure.get_supxlabel()
    trace.write_text(trace.read_text().replace("-0.125", "-0.13"))
    sign(trace.parent)
    with pytest.raises(BlipError, match=r"mnist5/blip/seed0/trace.csv: fc:7: -0.13 is no number"):
        draw_bit_string(load_runs([root]), "fc:7")


def test_nothing_to_draw_without_bits(tmp_path: Path) -> None:
    write_run(tmp_path, method="sgd")
    runs = load_runs([tmp_path])
    assert draw_bit_string(runs) is None
    with pytest.raises(BlipError, match="no method traced any"):
        write_figures(runs, tmp_path, "fc:7")


RECORDED = sorted(path.parent for path in (ROOT / "results/recorded").glob("*/tables"))


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, id=f.name, marks=[pytest.mark.slow] * f.name.startswith("ablations")) for f in RECORDED],
)
def test_recorded_runs_draw_the_tables_beside_them(folder: Path, tmp_path: Path) -> None:
    write_tables(load_runs([folder / "runs"]), tmp_path)
    recorded = [path.relative_to(folder / "tables") for path in (folder / "tables").rglob("*.*")]
    assert len(recorded) > 5
    assert [
        path for path in recorded if (tmp_path / path).read_bytes() != (folder / "tables" / path).read_bytes()
    ] == []
