"""Bits as the currency, the course of a run and where its capacity goes, from run folders alone."""

import re
import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from conftest import ROOT
from run_folders import write_game_run, write_run
from shell import Shell

from blip.results import load_runs, write_tables
from blip.results.capacity_figures import draw_capacity, draw_sizes
from blip.results.course import course, draw_course
from blip.results.currency import bits_needed, section, spread
from blip.results.currency_figure import draw_currency
from blip.results.figures import write_figures
from blip.results.metrics import run_metrics
from blip.results.style import STYLE, method_looks

R = [[0.9], [0.8, 0.7]]


@pytest.fixture
def trained(shell: Shell) -> Shell:
    """Runs of two methods on two tasks of five digits, 64-8-heads, by the command line."""
    assert shell.train("blip ewc", "--set", "training.epochs=1", "--no-weights")[0] == 0
    return shell


def test_bits_are_those_of_the_weights_and_of_what_the_method_keeps(trained: Shell) -> None:
    needed = bits_needed(load_runs([trained.runs])).set_index(["method", "task_learned"])
    shared, head = 64 * 8 + 8, 8 * 5 + 5
    assert needed["weights"].to_dict() == {
        (method, task): 32 * (shared + (task + 1) * head) for method in ("blip", "ewc") for task in (0, 1)
    }
    assert needed.loc["blip", "method_bits"].tolist() == [8 * 13 * shared] * 2, "13 bytes for each parameter"
    assert (needed["needed"] == needed["weights"] + needed["method_bits"]).all()
    assert needed.loc["ewc", "frozen"].isna().all()
    bits = pd.read_csv(trained.runs / "tiny/blip/seed0/bits.csv")
    last = bits[(bits["task_learned"] == 1) & (bits["frozen_bits"] > 0)]
    written = ((last["frozen_bits"] + 1) * last["parameters"]).sum()
    assert needed.loc[("blip", 1), "frozen"] == written + 32 * 2 * head
    accuracy = pd.read_csv(trained.runs / "tiny/ewc/seed0/accuracy.csv")
    assert needed.loc[("ewc", 1), "score"] == pytest.approx(accuracy[accuracy["task_learned"] == 1]["accuracy"].mean())


def test_a_network_for_each_task_needs_a_network_for_each_task(shell: Shell) -> None:
    assert shell.train("single-task", "--set", "training.epochs=1", "--no-weights")[0] == 0
    needed = bits_needed(load_runs([shell.runs])).set_index("task_learned")
    network = 32 * (64 * 8 + 8 + 2 * (8 * 5 + 5))
    assert needed["method_bits"].tolist() == [0, network]
    assert needed.loc[1, "needed"] == 2 * network


def test_the_same_accuracy_is_the_same_text_in_every_table(tmp_path: Path) -> None:
    """A mean of 95.865 % lies between two hundredths: the order of adding must not decide which of them is printed."""
    for run in ("runs/pmnist/blip/seed0", "runs/pmnist/sgd/seed0"):
        shutil.copytree(ROOT / "results/recorded/pmnist" / run, tmp_path / run)
    runs = load_runs([tmp_path / "runs"])
    row = runs.tables["accuracy"].query("method == 'blip' and task_learned == 9")["accuracy"]
    assert row.mean() == pytest.approx(0.95865, abs=1e-12)
    text = write_tables(runs, tmp_path / "out")
    assert len(found := re.findall(r"95\.8\d", text)) == 2
    assert len(set(found)) == 1


def test_all_methods_are_in_one_plot_and_in_the_table(trained: Shell, tmp_path: Path) -> None:
    runs = load_runs([trained.runs])
    with mpl.rc_context(STYLE):
        figure = draw_currency(runs, method_looks(runs.methods()))
    assert figure is not None
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["blip", "blip, weights in frozen bits", "ewc"]
    text = write_tables(runs, tmp_path / "out")
    assert "| method   | n   | accuracy %   | weights   | kept beside   | all   | weights in frozen bits   |" in text
    table = pd.read_csv(tmp_path / "out/tables/tiny_bits.csv")
    assert set(table["method"]) == {"blip", "ewc"}
    assert table["task_learned"].max() == 1
    assert tmp_path / "figures/tiny/currency.png" in write_figures(runs, tmp_path / "figures")


def test_joint_training_keeps_images_that_nobody_counts(shell: Shell, tmp_path: Path) -> None:
    assert shell.train("sgd joint", "--set", "training.epochs=1", "--no-weights")[0] == 0
    runs = load_runs([shell.runs])
    assert set(bits_needed(runs)["method"]) == {"sgd"}
    metrics = run_metrics(runs).set_index("method")["memory_mb"]
    assert metrics["sgd"] == 0
    assert pd.isna(metrics["joint"])
    assert "Without joint, which keeps all images." in write_tables(runs, tmp_path / "out")
    with mpl.rc_context(STYLE):
        figure = draw_currency(runs, method_looks(runs.methods()))
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sgd"]
    assert "Without joint" in figure.get_supxlabel()


def test_a_score_that_nobody_has_is_a_dash(trained: Shell) -> None:
    runs = load_runs([trained.runs])
    table = section(runs, spread(bits_needed(runs).assign(score=float("nan"))))
    assert [row.split("|")[3].strip() for row in table.splitlines()[4:]] == ["–", "–"]


def test_games_have_a_currency_too(tmp_path: Path) -> None:
    for method in ("blip", "sgd"):
        write_game_run(tmp_path, method, R=[[90.0], [40.0, 70.0]], random=[10, 10])
    runs = load_runs([tmp_path])
    frame = course(runs).set_index(["method", "tasks"])
    assert frame.loc[("sgd", 2), "forgetting"] == pytest.approx(50 / 80)
    assert frame.loc[("sgd", 2), "newest"] == pytest.approx(1)


def test_the_course_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, "x", "blip", R=[[0.9], [0.8, 0.7], [0.85, 0.6, 0.5]])
    frame = course(load_runs([tmp_path])).set_index("tasks")
    assert frame["newest"].tolist() == [0.9, 0.7, 0.5]
    assert frame["all"].tolist() == pytest.approx([0.9, 0.75, 0.65])
    assert frame["forgetting"].tolist()[1:] == pytest.approx([0.1, (0.05 + 0.1) / 2])
    assert frame["capacity"].is_monotonic_increasing
    runs = load_runs([tmp_path])
    with mpl.rc_context(STYLE):
        figure = draw_course(runs, method_looks(runs.methods()))
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == [
        *("accuracy, newest task", "all tasks so far", "forgetting", "capacity used"),
    ]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.9, 0.7, 0.5]
    write_run(tmp_path / "one", "x", "sgd", R=[[0.9]])
    assert draw_course(load_runs([tmp_path / "one"]), {}) is None


def test_capacity_is_shown_by_layer_and_task(tmp_path: Path) -> None:
    write_run(tmp_path, "x", "blip", R=R)
    runs = load_runs([tmp_path])
    with mpl.rc_context(STYLE):
        figure = draw_capacity(runs)
    assert figure is not None
    lines = {str(line.get_label()): line.get_ydata() for line in figure.axes[0].lines}
    assert set(lines) == {"0.weight (100)", "0.bias (100)", "2.weight (100)", "all"}
    assert lines["0.weight (100)"].tolist() == pytest.approx([(60 * 3 + 40 * 4) / 2000, (60 * 5 + 40 * 6) / 2000])
    assert lines["all"].tolist() == pytest.approx(sum(v for k, v in lines.items() if k != "all") / 3)


def test_frozen_bits_against_the_size_of_weights(tmp_path: Path) -> None:
    write_run(tmp_path, "x", "blip", R=R)
    runs = load_runs([tmp_path])
    with mpl.rc_context(STYLE):
        figure = draw_sizes(runs)
    assert figure is not None
    trace = runs.tables["trace"]
    first = trace[(trace["layer"] == "0.weight") & (trace["task_learned"] == 1)]
    shown = figure.axes[0].collections[1].get_offsets()
    assert shown[:, 1].tolist() == first["frozen_bits"].tolist()
    sizes = (first["value"].abs() / first["bound"]).tolist()
    assert [x for x, size in zip(shown[:, 0], sizes, strict=True) if size] == pytest.approx([s for s in sizes if s])
    assert min(shown[:, 0]) > 0, "zeros stand at the left end"
    write_run(tmp_path / "none", "x", "sgd", R=R)
    assert draw_sizes(load_runs([tmp_path / "none"])) is None is draw_capacity(load_runs([tmp_path / "none"]))
