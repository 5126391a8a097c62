"""What a setting does: tables and figures of runs in which it is varied."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from run_folders import write_run

from blip.errors import BlipError
from blip.results import load_runs, write_tables
from blip.results.ablation_figure import draw_ablation
from blip.results.ablations import ablation, summary
from blip.results.figures import write_figures
from blip.results.style import STYLE, method_looks


def write_variant(root: Path, settings: dict[str, object], last: float, method: str = "blip", seed: int = 0) -> Path:
    name = "digits5." + ".".join(f"{key.split('.')[-1]}-{value}" for key, value in settings.items())
    config = {"variant": {"of": "digits5", "settings": settings}}
    return write_run(root, name, method, seed, [[0.9], [last, 0.9]], config=config)


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """Ten times a prior, two seeds each, in an order that is none of names; fine-tuning as it is without."""
    for exponent in range(9, 19):
        for seed in (0, 1):
            settings: dict[str, object] = {"methods.blip.f_prior": float(f"1e-{exponent}")}
            write_variant(tmp_path / "runs", settings, exponent / 20 + seed / 100, seed=seed)
    write_run(tmp_path / "runs", "digits5", "sgd", R=[[0.9], [0.4, 0.9]])
    return tmp_path / "runs"


def test_the_table_has_a_row_for_each_run_in_the_order_of_values(varied: Path) -> None:
    runs = load_runs([varied])
    group = runs.groups()["digits5.f_prior"]
    assert len(group) == 10
    assert runs.ungrouped() == ["digits5"]
    frame = ablation(runs.of(*group))
    assert frame["methods.blip.f_prior"].is_monotonic_increasing
    assert frame["seed"].tolist() == [0, 1] * 10
    first = frame.iloc[0]
    assert (first["experiment"], first["acc"]) == ("digits5.f_prior-1e-18", pytest.approx((0.9 + 0.9) / 2))
    assert first["forgetting"] == pytest.approx(0)
    short = summary(frame)
    assert short["f_prior"].tolist()[:2] == ["1e-18", "1e-17"]
    assert short["acc_percent_mean"][0] == pytest.approx(90.25)
    assert short["n"].tolist() == [2] * 10


def test_tables_and_figures_show_a_group_once(varied: Path, tmp_path: Path) -> None:
    runs = load_runs([varied])
    text = write_tables(runs, tmp_path / "tables")
    assert text.count("## digits5.f_prior\n") == 1
    assert "## digits5.f_prior-1e-18" not in text
    assert "| 1e-18     | blip     | 2   | 90.25 ± 0.35 |" in text
    assert len(pd.read_csv(tmp_path / "tables/tables/digits5.f_prior.csv")) == 10
    written = write_figures(runs, tmp_path / "figures", only="digits5.f_prior")
    assert [str(p.relative_to(tmp_path)) for p in written[:2]] == [
        f"figures/digits5.f_prior/ablation.{suffix}" for suffix in ("pdf", "png")
    ]
    with pytest.raises(BlipError, match=r"--only x: expected one of digits5, digits5\.f_prior"):
        write_figures(runs, tmp_path, only="x")


def test_one_value_alone_is_an_experiment_like_any_other(varied: Path, tmp_path: Path) -> None:
    runs = load_runs([varied / "digits5.f_prior-1e-18"])
    assert runs.groups() == {}
    assert "## digits5.f_prior-1e-18\n" in write_tables(runs, tmp_path / "tables")
    assert tmp_path / "digits5.f_prior-1e-18/matrix.png" in write_figures(runs, tmp_path)


def test_the_figure_shows_the_means_and_who_lacks_the_setting(varied: Path) -> None:
    runs = load_runs([varied])
    with mpl.rc_context(STYLE):
        figure = draw_ablation(
            runs.of(*runs.groups()["digits5.f_prior"]), runs.of("digits5"), method_looks(runs.methods())
        )
    accuracy, forgetting, capacity = figure.axes
    assert accuracy.get_xscale() == "log"
    lines = {str(line.get_label()): line for line in accuracy.lines}
    x, y = lines["blip"].get_data()
    assert x[0] == 1e-18
    assert y[0] == pytest.approx(0.9025)
    assert len(x) == 10
    assert lines["sgd"].get_ydata() == pytest.approx([0.65, 0.65])
    level = {str(line.get_label()): line for line in forgetting.lines}["sgd"]
    assert level.get_ydata() == pytest.approx([0.5, 0.5])
    assert [line.get_label() for line in capacity.lines] == ["blip"], "nobody else freezes bits"
    assert "lack the setting" in figure.get_supxlabel()


def test_what_every_method_has_is_not_said_to_be_lacked(tmp_path: Path) -> None:
    for order in ("a", "b"):
        write_variant(tmp_path, {"data.task_order": order}, 0.5)
    write_run(tmp_path, "digits5", "sgd", 0, [[0.9], [0.4, 0.9]])
    runs = load_runs([tmp_path])
    with mpl.rc_context(STYLE):
        (group,) = runs.groups().values()
        figure = draw_ablation(runs.of(*group), runs.of("digits5"), method_looks(runs.methods()))
    assert "other methods on digits5 as it is" in figure.get_supxlabel()


def test_the_table_of_a_group_says_what_its_runs_do_not_share(tmp_path: Path) -> None:
    for seed, lr, commit in ((0, 0.1, "abc"), (1, 9.0, "abc"), (0, 0.1, "c0ffee")):
        settings = {"methods.blip.f_prior": 1e-14 if commit == "abc" else 1e-15}
        config = {"variant": {"of": "digits5", "settings": settings}, "training": {"lr": lr}}
        name = f"digits5.f_prior-{settings['methods.blip.f_prior']}"
        write_run(tmp_path / "runs", name, "blip", seed, config=config, commit=commit)
    text = write_tables(load_runs([tmp_path]), tmp_path / "out")
    assert "* Warning: blip of digits5.f_prior-1e-14 mixes 2 values of training.lr: 0.1, 9.0\n" in text
    assert "* Warning: digits5.f_prior mixes 2 commits: abc, c0ffee\n" in text


def test_variants_that_differ_in_more_than_they_say_are_told(tmp_path: Path) -> None:
    for name, prior, lr in (("digits5.f_prior-1", 1, 0.1), ("digits5.f_prior-2", 2, 0.1), ("digits5", 3, 0.9)):
        variant = {"of": "digits5", "settings": {"methods.blip.f_prior": prior}}
        config = {"method": {"f_prior": prior}, "training": {"lr": lr}, "name": name, "seed": 0}
        config |= {"variant": variant} if name != "digits5" else {}
        write_run(tmp_path / "runs", name, config=config)
    text = write_tables(load_runs([tmp_path]), tmp_path / "out")
    assert [line for line in text.splitlines() if "Warning" in line] == [
        "* Warning: blip of digits5.f_prior mixes 2 values of training.lr: 0.1, 0.9"
    ]


def test_settings_keep_their_column_whatever_they_are_called(tmp_path: Path) -> None:
    for n, labels in (("fan-in", "exact"), ("outputs", "sampled")):
        write_variant(tmp_path, {"methods.blip.n": n, "methods.blip.labels": labels}, 0.5)
    runs = load_runs([tmp_path])
    table = summary(ablation(runs))
    assert table[["methods.blip.n", "labels", "n"]].to_numpy().tolist() == [
        ["fan-in", "exact", 1],
        ["outputs", "sampled", 1],
    ]


def test_equally_named_settings_of_two_methods_are_two_groups(tmp_path: Path) -> None:
    for method, strengths in {"ewc": (1, 2), "lwf": (3, -4)}.items():
        for strength in strengths:
            write_variant(tmp_path / "runs", {f"methods.{method}.strength": strength}, 0.5, method)
    runs = load_runs([tmp_path / "runs"])
    assert sorted(runs.groups()) == [f"digits5.methods.{method}.strength" for method in ("ewc", "lwf")]
    write_tables(runs, tmp_path / "out")
    for method, strengths in {"ewc": [1, 2], "lwf": [-4, 3]}.items():
        table = pd.read_csv(tmp_path / f"out/tables/digits5.methods.{method}.strength.csv")
        assert table["strength"].tolist() == strengths
        assert set(table["method"]) == {method}


def test_values_without_an_order_and_further_settings(tmp_path: Path) -> None:
    for labels in ("sampled", "exact"):
        for bits in (4, 20):
            for method in ("blip", "sgd"):
                write_variant(tmp_path, {"labels": labels, "bits": bits}, 0.5, method)
    runs = load_runs([tmp_path])
    with mpl.rc_context(STYLE):
        figure = draw_ablation(runs.of(*runs.groups()["digits5.labels.bits"]), None, method_looks(runs.methods()))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["exact", "sampled"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == [f"{method}, bits {bits}" for method in ("blip", "sgd") for bits in (20, 4)]


def test_a_damaged_variant_is_told_in_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "x", config={"variant": {"of": "a/b", "settings": {"a": 1}}})
    with pytest.raises(BlipError) as error:
        load_runs([tmp_path])
    assert str(error.value).startswith(f"{folder}/run.json: config.variant: of: ")
    assert "\n" not in str(error.value)
