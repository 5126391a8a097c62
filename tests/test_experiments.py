"""The paper's experiments: the published hyper-parameters, and every method through every experiment on stand-ins."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_data import one_line

from blip.config import PlannedExperiment, load_experiment, load_suite
from blip.data import write_stand_ins
from blip.data.stand_in import MARKER
from blip.errors import BlipError
from blip.methods import METHODS
from blip.record import run_files
from blip.runs.train import Training, train_run
from blip.training.checkpoint import Checkpoint

CONFIG = ROOT / "config"
CPU = torch.device("cpu")
ALEXNET = {"name": "alexnet", "dropout": (0.2,) * 5, "bias": True, "batch_norm": False}

# From the paper and its published code. Nothing here is read from the configuration.
PUBLISHED: dict[str, dict[str, Any]] = {
    "mnist2": {
        "tasks": 2,
        "network": {"name": "mlp", "hidden": [1200], "bias": True},
        "training": (0.01, 64, 200),
        "f_prior": 1e-15,
        "validation": 0,
    },
    "mnist5": {
        "tasks": 5,
        "network": {"name": "mlp", "hidden": [1200], "bias": True},
        "training": (0.01, 64, 200),
        "f_prior": 1e-15,
        "validation": 0,
    },
    "pmnist": {
        "tasks": 10,
        "network": {"name": "mlp", "hidden": [1200], "bias": True},
        "training": (0.01, 64, 200),
        "f_prior": 1e-15,
        "validation": 0,
    },
    "cifar": {
        "tasks": 10,
        "network": ALEXNET | {"mul": 2, "hidden": (2048, 2048)},
        "training": (0.05, 32, 200),
        "f_prior": 5e-16,
        "validation": 0.1,
    },
    "mixture5": {
        "tasks": 5,
        "network": ALEXNET | {"mul": 0.8, "hidden": (1638, 1638)},  # 2048 · 0.8, rounded
        "training": (0.05, 32, 200),
        "f_prior": 5e-17,
        "validation": 0.15,
    },
    "miniimagenet_alexnet": {
        "tasks": 20,
        "network": ALEXNET | {"mul": 1, "hidden": (2048, 512)},
        "blip network": ALEXNET | {"mul": 1, "hidden": (2048, 512), "dropout": (0.2, 0.2, 0.5, 0.5, 0.5)},
        "training": (0.01, 32, 200),
        "f_prior": 5e-16,
        "validation": 0.02,
    },
    "miniimagenet_resnet": {
        "tasks": 20,
        "network": {"name": "resnet18", "mul": 1.5},
        "training": (0.01, 32, 200),
        "f_prior": 1e-16,
        "validation": 0.02,
    },
}
BASELINES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd-frozen": {},
    "ewc": {"strength": 5000},
    "lwf": {"strength": 2, "temperature": 1},
    "imm-mode": {"strength": 0.01},
}
CLIP = {
    "single-task": None,
    "joint": None,
    "blip": None,
    "sgd": None,
    "sgd-frozen": None,
    "ewc": 100,
    "lwf": 100,
    "imm-mode": 1000,
    "si": None,
    "mas": None,
    "gpm": None,
    "packnet": None,
    "hat": 10_000,
}

every_experiment = pytest.mark.parametrize("name", PUBLISHED)


def test_the_paper_suite_has_every_experiment_method_and_five_seeds(tmp_path: Path) -> None:
    _, planned = load_suite(CONFIG / "paper.yaml", tmp_path)
    games = planned.pop("atari6")
    assert sorted(games.methods) == ["blip", "ewc", "sgd", "sgd-frozen"]
    assert games.seeds == [0, 1, 2]
    assert not games.overrides
    assert list(planned) == list(PUBLISHED)
    for experiment in planned.values():
        assert sorted(experiment.methods) == sorted([*BASELINES, "blip"])
        assert set(CLIP) <= set(experiment.experiment.methods), "references are there to be asked for"
        assert experiment.seeds == [0, 1, 2, 3, 4]
        assert not experiment.overrides
        assert not experiment.experiment.stand_in


@every_experiment
def test_configured_hyper_parameters_are_the_published_ones(name: str) -> None:
    experiment, published = load_experiment(CONFIG / "experiments" / f"{name}.yaml"), PUBLISHED[name]
    mini = name.startswith("mini")
    for method in CLIP:
        run = experiment.run_config(method, 0)
        training = run["training"]
        assert (training["lr"], training["batch_size"], training["epochs"]) == published["training"]
        schedule = ("lr_patience", "lr_factor", "lr_min")
        assert tuple(training[key] for key in schedule) == (5, 3, 1e-4)
        network = published.get(f"{method} network", published["network"])
        assert experiment.network_of(method).model_dump() == network
        assert run["network"] == json.loads(json.dumps(network))
        assert METHODS[method].clip_norm == CLIP[method]
        settings = run["method"]
        for key, value in BASELINES.get(method, {}).items():
            assert settings[key] == value
        if "fisher_batch_size" in settings and method != "blip":
            assert settings["fisher_batch_size"] == training["batch_size"]
    blip = experiment.run_config("blip", 0)["method"]
    assert blip["f_prior"] == published["f_prior"]
    assert (blip["fisher_batch_size"], blip["fisher_batches"]) == ((10, 100) if mini else (100, 80))
    assert (blip["max_bits"], blip["weight_range"]) == (20, 20 if mini else 6)
    assert blip["initialisation"] == ("zero-biases" if mini else "normal")
    assert experiment.data.validation == published["validation"]


def test_defaults_are_what_holds_where_an_experiment_says_nothing() -> None:
    experiment = load_experiment(CONFIG / "experiments" / "gpm_pmnist.yaml")
    assert experiment.defaults_of("ewc")["strength"] == 5000
    assert experiment.run_config("ewc", 0)["method"]["strength"] == 100
    assert experiment.defaults_of("gpm")["images"] == [125]
    assert not experiment.defaults_of("sgd")


def test_configured_sequences_are_the_published_ones() -> None:
    data = {name: load_experiment(CONFIG / "experiments" / f"{name}.yaml").data for name in PUBLISHED}
    cuts = {n: [(s.name, s.classes_per_task, s.permutations) for s in d.sources] for n, d in data.items()}
    assert cuts["mnist2"] == [("mnist", 5, None)]
    assert cuts["mnist5"] == [("mnist", 2, None)]
    assert cuts["pmnist"] == [("mnist", None, 10)]
    assert cuts["cifar"] == [("cifar10", 2, None), ("cifar100", 20, None)]
    assert [cut[0] for cut in cuts["mixture5"]] == ["cifar10", "notmnist", "mnist", "svhn", "fashion-mnist"]
    assert cuts["miniimagenet_alexnet"] == cuts["miniimagenet_resnet"] == [("miniimagenet", 5, None)]
    assert [name for name, d in data.items() if d.shuffle_tasks] == ["cifar", "mixture5"]
    assert [name for name, d in data.items() if d.shuffle_classes] == ["miniimagenet_alexnet", "miniimagenet_resnet"]
    grey = {s.name: (s.mean, s.std, s.pad_to, s.channels) for s in data["mixture5"].sources if s.pad_to}
    assert grey == {
        "mnist": ([0.1], [0.2752], 32, 3),
        "notmnist": ([0.4254], [0.4501], 32, 3),
        "fashion-mnist": ([0.2190], [0.3318], 32, 3),
    }


# Stand-ins

FEW_CLASSES = 10


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder with generated images for every source."""
    raw = tmp_path_factory.mktemp("raw")
    write_stand_ins(raw)
    return raw


@pytest.fixture(scope="module")
def few_classes(stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder with some of mini-ImageNet's stand-ins."""
    raw = tmp_path_factory.mktemp("few")
    (raw / MARKER).touch()
    (raw / "MI_raw").mkdir()
    for folder in sorted((stand_ins / "MI_raw").iterdir())[:FEW_CLASSES]:
        (raw / "MI_raw" / folder.name).symlink_to(folder)
    return raw


def planned(name: str) -> PlannedExperiment:
    return load_suite(CONFIG / "stand-in.yaml", Path())[1][name]


@pytest.mark.parametrize(("name", "method"), [(name, method) for name in PUBLISHED for method in METHODS])
def test_every_method_goes_through_every_experiment(
    name: str, method: str, stand_ins: Path, few_classes: Path, tmp_path: Path
) -> None:
    plan, raw, tasks = planned(name), stand_ins, PUBLISHED[name]["tasks"]
    experiment = plan.experiment
    if name.startswith("mini") and method != "blip":  # twenty tasks take a while; two show the same of the others
        source = experiment.sources[0].model_dump(exclude_none=True) | {"raw_classes": FEW_CLASSES}
        experiment = load_experiment(plan.path, plan.overrides | {"data.sources": [source]})
        raw, tasks = few_classes, 2
    folder = train_run(experiment, method, 0, tmp_path, Training(raw, raw, tmp_path, "cpu"))
    assert {path.name for path in folder.iterdir()} == set(run_files(experiment.tables_of(method)))
    about = json.loads((folder / "run.json").read_text())
    assert about["stand_in"] is True
    assert len(about["tasks"]) == tasks
    with (folder / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["task_learned"]), int(r["task"])) for r in rows] == [
        (i, j) for i in range(tasks) for j in range(i + 1)
    ]
    assert all(math.isfinite(float(r["loss"])) and 0 <= float(r["accuracy"]) <= 1 for r in rows)
    if method == "blip":
        with (folder / "bits.csv").open() as file:
            assert any(int(row["frozen_bits"]) for row in csv.DictReader(file)), "something is frozen"


def test_the_stand_in_suite_is_the_paper_suite_with_smaller_numbers() -> None:
    stand_in, paper = (load_suite(CONFIG / f"{name}.yaml", Path())[1] for name in ("stand-in", "paper"))
    assert list(stand_in) == list(paper)
    for name, plan in stand_in.items():
        assert plan.path == paper[name].path
        assert plan.methods == list(plan.experiment.methods), "every one"
        assert set(paper[name].methods) <= set(plan.methods)
        assert plan.experiment.stand_in


def test_generated_images_are_never_taken_for_the_real_ones(stand_ins: Path, tmp_path: Path) -> None:
    real = load_experiment(planned("cifar").path, planned("cifar").overrides | {"stand_in": False})
    with pytest.raises(BlipError) as error:
        train_run(real, "sgd", 0, tmp_path, Training(stand_ins, stand_ins, tmp_path))
    assert "cifar10.safetensors: made of generated images" in one_line(error)
    assert not list(tmp_path.iterdir())


def test_stand_ins_are_the_same_every_time(stand_ins: Path, tmp_path: Path) -> None:
    write_stand_ins(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    assert len(files) == (5 * 10 + 2 * 100) * 12  # five of ten classes, two of a hundred
    for path in files[::97]:
        assert (tmp_path / path).read_bytes() == (stand_ins / path).read_bytes()


@pytest.mark.parametrize("method", ["si", "mas"])
def test_the_penalties_of_digits5_are_weak_enough_for_its_steps(method: str, tmp_path: Path) -> None:
    """A step of size lr is stable where lr times the penalty's curvature stays below 2; above it roundings, and so the
    processor, decide which runs of the demo diverge. (EWC clips its gradients.)"""
    experiment = load_experiment(CONFIG / "experiments/digits5.yaml")
    inputs = experiment.inputs(4, tmp_path / "raw", tmp_path / "data", CPU)
    trainer = experiment.trainer(method, 4, inputs, Checkpoint(tmp_path / "checkpoint"), CPU, False)
    trainer.run(method)
    penalty = trainer.method.quadratic_penalty()
    stiffest = max(float(stiffness.max()) for stiffness in penalty.stiffness.values())
    assert 0 < experiment.training_of(method).lr * penalty.strength * stiffest < 1
