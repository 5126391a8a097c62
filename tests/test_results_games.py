"""Runs on games in, tables and figures of returns out."""

import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from run_folders import sign, write_game_run, write_run

from blip.errors import BlipError
from blip.results import load_runs, run_metrics, write_tables
from blip.results.ablations import ablation
from blip.results.course import course, draw_course
from blip.results.figures import draw_returns, write_figures
from blip.results.metrics import normalised_scores, reference_scores, scores_kept
from blip.results.style import method_looks
from blip.results.variants import variants

RANDOM = [10.0, 100.0]
KEEPS = [[110.0], [110.0, 200.0]]
FORGETS = [[110.0], [35.0, 300.0]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`blip` keeps the first game and learns half of the second; `sgd` loses three quarters of the first."""
    for seed in (0, 1):
        write_game_run(tmp_path, "blip", seed, R=KEEPS, random=RANDOM)
        write_game_run(tmp_path, "sgd", seed, R=FORGETS, random=RANDOM)
    return tmp_path


def test_returns_are_normalised_by_the_random_agent_and_the_best_learner(root: Path) -> None:
    runs = load_runs([root])
    assert runs.tasks == ["Boxing", "Krull"]
    assert reference_scores(runs).to_dict("list") == {"chance": RANDOM, "best": [110.0, 300.0]}
    normalised = normalised_scores(runs).set_index(["method", "seed", "task_learned", "task"])["score"]
    assert normalised["blip", 0].to_dict() == {(0, 0): 1.0, (1, 0): 1.0, (1, 1): 0.5}
    assert normalised["sgd", 1].to_dict() == {(0, 0): 1.0, (1, 0): 0.25, (1, 1): 1.0}
    metrics = run_metrics(runs).set_index(["method", "seed"])
    assert metrics.loc[("blip", 0), ["acc", "bwt", "learning_acc"]].tolist() == [0.75, 0, 0.75]
    assert metrics.loc[("sgd", 0), ["acc", "bwt", "forgetting"]].tolist() == [0.625, -0.75, 0.75]


def test_accuracies_beside_games_stay_as_they_are(root: Path) -> None:
    write_run(root, "mnist5", "sgd", 0, [[0.9], [0.8, 0.7]])
    frame = normalised_scores(load_runs([root]))
    assert frame[frame["experiment"] == "mnist5"]["score"].tolist() == [0.9, 0.8, 0.7]
    assert len(frame) == 3 + 4 * 3


def test_where_nobody_learned_anything_there_is_no_course(tmp_path: Path) -> None:
    write_game_run(tmp_path, "sgd", R=[[5.0], [5.0, 50.0]], random=RANDOM)
    runs = load_runs([tmp_path])
    assert draw_course(runs, method_looks(runs.methods())) is None
    assert write_figures(runs, tmp_path / "figures")


def test_a_game_that_nobody_learned_has_no_share(tmp_path: Path) -> None:
    write_game_run(tmp_path, "sgd", R=[[110.0], [60.0, 99.0]], random=RANDOM)
    runs = load_runs([tmp_path])
    row = run_metrics(runs).iloc[0]
    assert pd.isna(row["acc"])
    assert row["bwt"] == pytest.approx(-0.5)
    text = write_tables(runs, tmp_path / "tables")
    assert "In some game no method did better than chance" in text
    assert "| sgd      | 1   | –" in text


def test_tables_of_games(root: Path) -> None:
    runs = load_runs([root])
    kept = scores_kept(runs).set_index(["game", "method"])
    assert kept.loc[("Boxing", "sgd"), ["chance", "learned_mean", "end_mean", "end_std"]].tolist() == [10, 110, 35, 0]
    text = write_tables(runs, root / "tables")
    assert "normalised return %" in text
    assert "Highest average normalised return after 2 games: blip (75.00 %)" in text
    assert "forgets most: sgd (-75.00 points)" in text
    assert "Steps trained per game: 128; each return is the mean of 100 games played" in text
    assert "| Boxing | 10.0     | 110.0 ± 0.0 → 110.0 ± 0.0 | 110.0 ± 0.0 → 35.0 ± 0.0  |" in text
    saved = pd.read_csv(root / "tables/tables/atari_returns.csv")
    assert saved[["game", "method"]].drop_duplicates().shape == (4, 2)
    assert "normalised return" in (root / "tables/tables/atari.tex").read_text()


def test_variants_are_on_the_scale_of_the_experiment_as_it_is(tmp_path: Path) -> None:
    """A variant that learns next to nothing would be at 100 % on a scale of its own."""
    for seed in range(2):
        write_game_run(tmp_path / "runs", R=[[101], [101, 52]], random=[1, 2], seed=seed)
        for f_prior, last in ((1e-15, 7), (1e-14, 27)):
            settings = {"methods.blip.f_prior": f_prior}
            variant = {"variant": {"of": "atari", "settings": settings}}
            changed = {"experiment": f"atari.f_prior-{f_prior:g}", "config": variant}
            write_game_run(tmp_path / f"{f_prior}", R=[[11], [11, last]], random=[1, 2], seed=seed, **changed)
    runs = load_runs([tmp_path])
    weak = [0.1, (0.1 + 0.1) / 2]  # 10 of 100 points, and 5 of 50
    metrics = run_metrics(runs).set_index(["experiment", "seed"])["acc"]
    assert metrics["atari", 0] == pytest.approx(1)
    assert metrics["atari.f_prior-1e-15", 0] == pytest.approx(weak[1])
    assert ablation(runs.of(*runs.groups()["atari.f_prior"]))["acc"].tolist() == pytest.approx([0.1, 0.1, 0.3, 0.3])
    assert variants(runs)["acc_difference"].iloc[1:].tolist() == pytest.approx([-0.7, -0.9])  # by name
    frame = course(runs.of(*runs.groups()["atari.f_prior"]))
    assert frame["newest"].max() == pytest.approx(0.5)

    shutil.rmtree(tmp_path / "runs/atari/blip")
    alone = load_runs([tmp_path])
    together = ablation(alone.of(*alone.groups()["atari.f_prior"]))["acc"]
    assert together.tolist() == pytest.approx([0.6, 0.6, 1, 1]), "then of the best of all variants: 10 and 25 points"


@pytest.mark.parametrize(("longer", "shorter"), [("blip", "sgd"), ("sgd", "blip")])
def test_runs_of_other_numbers_of_games_stand_beside_each_other(tmp_path: Path, longer: str, shorter: str) -> None:
    write_game_run(tmp_path / "runs", longer, R=[[110], [110, 50], [90, 50, 70]], random=[10, 10, 10])
    write_game_run(tmp_path / "runs", shorter, R=[[60], [35, 50]], random=[10, 10])
    text = write_tables(load_runs([tmp_path]), tmp_path / "out")
    lines = [line for line in text.splitlines() if line.startswith(("| Boxing", "| Riverraid"))]
    assert len(lines) == 2
    assert "110.0 → 90.0" in lines[0]
    assert "60.0 → 35.0" in lines[0]
    assert "70.0 → 70.0" in lines[1]
    assert "–" in lines[1]
    assert "nan" not in text


def test_figures_of_games(root: Path) -> None:
    runs = load_runs([root])
    names = {path.stem for path in write_figures(runs, root / "figures")}
    course = {"course", "capacity", "sizes"}
    assert names == {"matrix", "average", "forgetting", "bit_string", "returns"} | course
    with mpl.rc_context({"backend": "agg"}):
        figure = draw_returns(runs, method_looks(runs.methods()))
    assert figure is not None
    first, second = figure.axes[:2]
    assert [ax.get_title() for ax in (first, second)] == ["Boxing", "Krull"]
    x, y = first.lines[0].get_data()
    assert (x * 1e6).round().tolist() == [0, 64, 128, 192, 256]
    assert y.tolist() == [10, 60, 110, 110, 110]
    assert min(second.lines[0].get_xdata()) == pytest.approx(128e-6)


def test_classification_has_no_learning_curves(tmp_path: Path) -> None:
    write_run(tmp_path)
    runs = load_runs([tmp_path])
    assert draw_returns(runs, method_looks(runs.methods())) is None


def test_a_game_without_a_random_agent_is_told(root: Path) -> None:
    file = next(root.rglob("random_returns.csv"))
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    sign(file.parent)
    with pytest.raises(BlipError, match=r"random_returns\.csv: return: expected a number of every game, none of 1"):
        load_runs([root])


@pytest.mark.parametrize("table", ["returns", "updates", "replays", "random_returns"])
def test_missing_tables_of_games_are_one_line(root: Path, table: str) -> None:
    path = root / "atari/blip/seed0" / f"{table}.csv"
    path.unlink()
    with pytest.raises(BlipError, match=r"expected the columns") as error:
        load_runs([root])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
