"""Settings are chosen by validation images of the first tasks, and by nothing else."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from shell import Shell, interrupt_after, refused

from blip import BLIP
from blip.config import dotted_key, load_experiment, load_suite
from blip.core.checks import DegenerateError
from blip.data import load_sequence, prepare_experiment
from blip.errors import BlipError
from blip.plan import Plan
from blip.runs.tune import at_the_edge

SETTINGS = {
    "device": "cpu",
    "jobs_per_gpu": 1,
    "threads": 1,
    "products": "auto",
    "raw": "raw",
    "data": "data",
    "results": "results",
    "container": None,
}


def tune(shell: Shell, method: str, *more: str | Path) -> tuple[int, list[str]]:
    folders = ["--raw", shell.folder / "raw", "--data", shell.data, "--checkpoints", shell.checkpoints]
    return shell("tune", shell.config, "--method", method, "--out", shell.folder / "tuned", *folders, *more)


def table(shell: Shell, method: str) -> list[dict[str, str]]:
    with (shell.folder / "tuned" / "tiny" / f"{method}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_on_validation_images_is_chosen_and_all_is_written(shell: Shell) -> None:
    assert tune(shell, "ewc", "--grid", "strength=0,30,100000", "--tasks", "2", "--seed", "0", "1")[0] == 0
    rows = table(shell, "ewc")
    assert [(row["strength"], row["seed"]) for row in rows] == [
        (strength, seed) for strength in ("0", "30", "100000") for seed in ("0", "1")
    ]
    means = {s: sum(float(row["accuracy"]) for row in rows if row["strength"] == s) / 2 for s in ("0", "30", "100000")}
    chosen = {row["strength"] for row in rows if row["chosen"] == "1"}
    assert chosen == {max(means, key=lambda s: means[s])}
    assert min(means.values()) < max(means.values())
    path, setting = shell.out.splitlines()
    assert Path(path).exists()
    assert setting == f"methods.ewc.strength={chosen.pop()}"


def test_a_trial_names_no_test_image_and_tests_on_what_was_held_out(tiny: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"name": "t", "data.trial_tasks": 1, "data.validation": 0.2}
    trial, whole = load_experiment(tiny, changes), load_experiment(tiny, {"name": "w", "data.validation": 0.2})
    splits = [prepare_experiment(e.name, e.data, 0, tmp_path, tmp_path / "data") for e in (trial, whole)]
    tried, real = (load_sequence(split, tmp_path / "data") for split in splits)
    assert (len(tried), len(real)) == (1, 2)
    assert [indices.test for _, indices in splits[0].tasks] == [None]
    assert tried.test(0).images.equal(real.task(0).valid.images)
    assert tried.task(0).train.images.equal(real.task(0).train.images)
    assert real.test(0).images.shape != tried.test(0).images.shape


def test_what_a_run_depends_on_is_as_before_without_trials(tiny: Path) -> None:
    assert "trial_tasks" not in load_experiment(tiny).run_config("sgd", 0)["data"]
    assert load_experiment(tiny, {"data.trial_tasks": 1, "data.validation": 0.1}).run_config("sgd", 0)["data"][
        "trial_tasks"
    ]
    with pytest.raises(BlipError, match="trial_tasks are tested on validation images"):
        load_experiment(tiny, {"data.trial_tasks": 1})


def test_a_stopped_choice_goes_on_and_a_finished_trial_is_left_alone(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--grid", "strength=1,10", "--tasks", "1")
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)  # in the second trial
        assert tune(shell, "ewc", *arguments)[0] == 130
    assert not (shell.folder / "tuned" / "tiny" / "ewc.csv").exists()
    status, said = tune(shell, "ewc", *arguments)
    assert status == 0
    assert [line for line in said if "complete already" in line and "strength=1/" in line]
    assert any("going on at task 1, epoch 2" in line for line in said)
    stopped = table(shell, "ewc")
    (shell.folder / "tuned").rename(shell.folder / "before")
    tune(shell, "ewc", *arguments)
    assert table(shell, "ewc") == stopped


def test_a_loss_that_is_not_finite_is_never_chosen(shell: Shell) -> None:
    status, said = tune(shell, "si", "--grid", "strength=1e30,1", "--tasks", "2")
    assert status == 0
    assert [(row["strength"], float(row["accuracy"]) > 0, row["chosen"]) for row in table(shell, "si")] == [
        ("1e30", False, "0"),
        ("1", True, "1"),
    ]
    assert any("the loss is" in line for line in said)
    status, said = tune(shell, "si", "--grid", "strength=1e30", "--tasks", "2")
    assert status == 2
    assert said[-1].endswith("si: every trial fails: expected other values of strength")


def test_a_method_s_own_learning_rate_can_be_chosen_and_then_set(shell: Shell) -> None:
    assert tune(shell, "sgd", "--grid", "training.lr=0.001,0.05", "--tasks", "2")[0] == 0
    rates = {row["training.lr"]: float(row["accuracy"]) for row in table(shell, "sgd")}
    assert rates["0.001"] < rates["0.05"]
    chosen = shell.out.splitlines()[1]
    assert chosen == "training_changes.sgd.lr=0.05"
    assert shell.train("ewc sgd", "--set", chosen, "training.epochs=1")[0] == 0
    for method, rate in {"ewc": "0.1", "sgd": "0.05"}.items():
        history = (shell.runs / "tiny" / method / "seed0" / "history.csv").read_text()
        assert {row["lr"] for row in csv.DictReader(history.splitlines())} == {rate}


def test_an_end_of_the_grid_is_told() -> None:
    grid = {"strength": [1, 10, 100], "damping": [0.1, 1]}
    assert at_the_edge(grid, {"strength": 100, "damping": 1}) == ["strength"]
    assert at_the_edge(grid, {"strength": 10, "damping": 1}) == []
    unordered = {"strength": [10, 1, 100], "labels": ["exact", "sampled", "true"]}
    assert at_the_edge(unordered, {"strength": 10, "labels": "exact"}) == []
    assert at_the_edge(unordered, {"strength": 1, "labels": "true"}) == ["strength"]


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("ewc", ["--grid", "strength"], "--grid strength: expected KEY=VALUE"),
        ("ewc", ["--grid", "strength=["], "--grid strength=[: expected KEY=VALUE"),
        ("ewc", ["--grid", "strength=1,1"], "blip: tune: grids.ewc.strength: expected values, each once"),
        ("ewc", ["--grid", "strength="], "blip: tune: grids.ewc.strength: expected values, each once"),
        ("ewc", ["--grid", "strength=1,-1"], "methods.ewc.strength: Input should be greater than or equal to 0"),
        ("ewc", ["--grid", "streng=1"], "methods.ewc.streng: unknown key"),
        ("ewc", ["--grid", "training.lr=0"], "training_changes.ewc.lr: Input should be greater than 0"),
        ("ewc", ["--grid", "training.rate=1"], "training_changes.ewc.rate: unknown key"),
        ("nobody", ["--grid", "strength=1"], "method nobody: not in tiny"),
        (
            "ewc",
            ["--grid", "strength=1", "--tasks", "3"],
            "tasks of a trial: expected at most the 2 there are, found 3",
        ),
        ("ewc", ["--grid", "strength=1", "--validation", "1"], "blip: tune: validation: Input should be less than 1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(shell: Shell, method: str, arguments: list[str], expected: str) -> None:
    assert expected in refused(tune(shell, method, *arguments))
    assert not (shell.folder / "tuned").exists()


def test_games_have_no_validation_images(shell: Shell) -> None:
    shell.config = ROOT / "config/experiments/atari2_tiny.yaml"
    assert "settings are chosen by validation images" in refused(tune(shell, "ewc", "--grid", "strength=1"))


def test_a_trial_in_which_blip_finds_nothing_to_keep_counts_as_a_failed_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    consolidate, called = BLIP.consolidate, []

    def refusing(self: BLIP, fisher: Any) -> None:
        called.append(self)
        if len(called) == 1:
            raise DegenerateError("the Fisher information is 0 everywhere")
        consolidate(self, fisher)

    monkeypatch.setattr(BLIP, "consolidate", refusing)
    code, said = tune(shell, "blip", "--grid", "f_prior=1e-11,1e-12", "--seed", "0", "--tasks", "1")
    assert code == 0
    assert [(float(row["accuracy"]) > 0, row["chosen"]) for row in table(shell, "blip")] == [(False, "0"), (True, "1")]
    assert any("expected a network that learns" in line for line in said)


def test_a_suite_has_a_rule_for_each_method_with_a_grid(tmp_path: Path, tiny: Path) -> None:
    entry = {
        "config": str(tiny),
        "methods": ["sgd"],
        "set": {"training.epochs": 2},
        "tune": {
            "tasks": 2,
            "set": {"training.epochs": 1},
            "seeds": [0, 3],
            "grids": {"ewc": {"strength": [1, 1e-5]}, "si": {"damping": [1]}},
        },
    }
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": [entry]}))
    plan = Plan(SETTINGS | {"suite": str(suite)})
    ewc, si = plan.tuning
    assert (ewc.name, plan.tuned(ewc)) == ("tune_tiny_ewc", f"{plan.out}/tuned/tiny/ewc.csv")
    assert ewc.minutes() > si.minutes()
    assert ewc.arguments() == [
        *(str(tiny), "--set", "training.epochs=1"),
        *("--method", "ewc", "--grid", "strength=1, 1e-05"),
        *("--seed", "0", "3", "--tasks", "2", "--validation", "0.1"),
    ]
    assert [job.methods for job in plan.training] == [["sgd"]], "no run depends on it"
    entry["tune"] = {"grids": {"nobody": {"strength": [1]}}}
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": [entry]}))
    with pytest.raises(BlipError, match=r"tune\.grids: nobody is not among the methods"):
        load_suite(suite, tmp_path)


@pytest.mark.parametrize(
    ("config", "asked", "message"),
    [
        ("digits5", {"grids": {"ewc": {"strenght": [1]}}}, r"digits5\.yaml, .*: methods\.ewc\.strenght: unknown key"),
        ("digits5", {"grids": {"si": {"training.lr": [-1]}}}, r"digits5\.yaml, .*: training_changes\.si\.lr: "),
        (
            "digits5",
            {"grids": {"ewc": {"strength": [1]}}, "set": {"trainng.epochs": 1}},
            r"digits5\.yaml, changed in trainng\.epochs: trainng: unknown key",
        ),
        ("atari2", {"grids": {"ewc": {"strength": [1]}}}, r"atari2\.yaml: .*validation images, of which it has none"),
    ],
)
def test_what_a_suite_asks_to_tune_is_checked_before_anything_runs(
    config: str, asked: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = {"config": str(ROOT / f"config/experiments/{config}.yaml"), "tune": asked}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": [entry]}))
    with pytest.raises(BlipError, match=message):
        load_suite(suite, tmp_path)


def test_what_the_workflow_is_given_is_as_a_shell_would_have_it(tmp_path: Path, tiny: Path) -> None:
    suite = tmp_path / "suite.yaml"
    images = tmp_path / "elsewhere/pets"
    images.mkdir(parents=True)
    source = {"name": "pets", "folder": str(images), "side": 8, "classes_per_task": 2}
    entries: list[dict[str, Any]] = [{"config": str(tiny), "methods": ["sgd"], "set": {"data.sources": [source]}}]
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": entries}))
    given = SETTINGS | {"suite": str(suite), "raw": "~/raw", "results": "out//"}
    plan = Plan(given)
    assert (plan.raw, plan.out) == (Path.home() / "raw", "out/s")
    assert str(images) in plan.bind({}).split(","), "the images, which lie neither here nor in raw"
    with pytest.raises(BlipError, match=r"^config: results: expected a text .*found ''"):
        Plan(given | {"results": ""})
    with pytest.raises(BlipError, match=r"^config/config\.yaml: products is missing$"):
        Plan({key: value for key, value in given.items() if key != "products"})
    for name in ("my-tiny", "my_tiny"):
        entries.append({"config": str(tiny), "methods": ["sgd"], "set": {"name": name}})
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": entries}))
    with pytest.raises(BlipError, match=r"two have the rule train_my_tiny"):
        Plan(given)


def test_a_single_variant_is_drawn_as_an_experiment(tmp_path: Path, tiny: Path) -> None:
    entry: dict[str, Any] = {"config": str(tiny), "methods": ["sgd"], "vary": {"training.lr": [0.05]}}
    suite = tmp_path / "suite.yaml"
    for rates, drawn in (([0.05], "tiny.lr-0.05"), ([0.05, 0.1], "tiny.lr")):
        entry["vary"]["training.lr"] = rates
        suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": [entry]}))
        assert list(Plan(SETTINGS | {"suite": str(suite)}).drawn) == [drawn]


def test_a_suite_without_any_data_is_refused_before_a_job(tmp_path: Path) -> None:
    entry = {"config": str(ROOT / "config/experiments/mnist5.yaml"), "only_if_present": True}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "s", "seeds": [0], "experiments": [entry]}))
    with pytest.raises(BlipError, match=r"suite\.yaml: .* has the data of none of its experiments"):
        Plan(SETTINGS | {"suite": str(suite), "raw": str(tmp_path / "nowhere")})


def test_every_value_that_the_project_tries_is_a_setting_of_its_method(tmp_path: Path) -> None:
    tried = 0
    for job in Plan(SETTINGS | {"suite": str(ROOT / "config/comparison.yaml"), "raw": str(tmp_path)}).tuning:
        path, experiment, asked = job.planned.path, job.planned.experiment, job.asked
        changes = {**job.planned.overrides, **asked.set, **experiment.trial(asked.tasks, asked.validation)}
        for key, values in asked.grids[job.method].items():
            trials = [load_experiment(path, {**changes, dotted_key(job.method, key): value}) for value in values]
            configs = {json.dumps(trial.run_config(job.method, 0)) for trial in trials}
            assert len(configs) == len(values), f"{job.name}: {key} changes nothing"
            tried += len(values)
    assert tried > 100
