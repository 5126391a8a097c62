"""The loop: patience schedule, best epoch, exact resume."""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from blip.config import load_experiment, published
from blip.data import Examples, load_sequence, prepare_experiment
from blip.errors import BlipError, DivergedError
from blip.images.image_trainer import ImageTrainer
from blip.methods import METHODS
from blip.networks import MultiHeadNetwork
from blip.training.checkpoint import Checkpoint, to_bytes

CPU = torch.device("cpu")
Step: TypeAlias = "partial[None]"
"""A training step of a trainer on the CPU, whose first argument is the gradient descent."""


def make_trainer(
    config: Path,
    method: str,
    folder: Path,
    device: torch.device = CPU,
    cuda_graphs: bool = True,
    **overrides: object,
) -> ImageTrainer:
    experiment = load_experiment(config, {k.replace("__", "."): v for k, v in overrides.items()})
    data = config.parent / "data"
    split = prepare_experiment(experiment.name, experiment.data, 0, config.parent, data)
    sequence = load_sequence(split, data, device)
    checkpoint = Checkpoint(folder)
    trainer: ImageTrainer = experiment.trainer(method, 0, sequence, checkpoint, device, cuda_graphs)
    trainer.seconds_between_checkpoints = 0
    return trainer


def script_losses(trainer: ImageTrainer, losses: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let validation report `losses` in turn in the first task; returns the learning rates as they are used."""
    used: list[float] = []
    reported: Iterator[float] = iter(losses)
    train_epoch = trainer._train_epoch

    def train(step: Step, examples: object) -> float:
        if trainer.task == 0:
            used.append(float(step.args[0].rate))
        return train_epoch(step, examples)  # type: ignore[arg-type]

    evaluate = trainer.evaluate

    def report(examples: object, task: int, *, penalty: bool = False) -> tuple[float, float]:
        if penalty and task == 0:
            return next(reported), 0.5
        return evaluate(examples, task, penalty=penalty)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_train_epoch", train)
    monkeypatch.setattr(trainer, "evaluate", report)
    return used


def test_five_bad_epochs_divide_the_learning_rate_by_three(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path / "c", training__epochs=14, training__lr=0.09)
    # Best at epoch 1; an equal loss is a bad one; the count starts anew after the fifth.
    losses = [1.0, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.6, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5]
    used = script_losses(trainer, losses, monkeypatch)
    trainer.run("test")
    assert used == pytest.approx([0.09] * 7 + [0.03] * 7)


def test_a_task_ends_when_the_learning_rate_falls_below_its_minimum(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path / "c", training__epochs=40, training__lr=0.00085)
    used = script_losses(trainer, [1.0] * 40, monkeypatch)
    trainer.run("test")
    # 8.5e-4 lasts for the first epoch and five bad ones, 2.8e-4 for five; 9.4e-5 is below 1e-4.
    assert used == pytest.approx([0.00085] * 6 + [0.00085 / 3] * 5)
    assert [row["epoch"] for row in trainer.tables["history"] if row["task"] == 0] == list(range(11))


def test_the_best_epochs_weights_are_restored(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path / "c", training__epochs=4)
    script_losses(trainer, [1.0, 0.2, 0.9, 0.8], monkeypatch)
    seen: list[Tensor] = []
    record = trainer._record_epoch
    weight = trainer.network.features[1].weight

    def remember(*arguments: object) -> None:
        seen.append(weight.detach().clone())
        record(*arguments)  # type: ignore[arg-type]

    after: list[Tensor] = []
    monkeypatch.setattr(trainer, "_record_epoch", remember)
    monkeypatch.setattr(trainer.method, "after_task", lambda *_: after.append(weight.detach().clone()))
    trainer.run("test")
    assert torch.equal(after[0], seen[1])
    assert not torch.equal(seen[1], seen[3])


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it and go on."""


RESNET = {"name": "resnet18", "mul": 0.125}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *((method, {}) for method in METHODS),
        *((method, {"network": RESNET, "training__epochs": 2}) for method in ("blip", "ewc")),
    ],
)
def test_a_run_stopped_after_any_epoch_ends_with_the_same_bytes(
    method: str, settings: dict[str, object], tiny: Path, tmp_path: Path
) -> None:
    whole = make_trainer(tiny, method, tmp_path / "whole", **settings)
    whole.run("whole")

    for stop in range(1, 2 * whole.config.epochs + 1):
        stopped = make_trainer(tiny, method, tmp_path / "stopped", **settings)
        save, saves = stopped._save, []

        def save_and_die(*arguments: object, save=save, saves=saves, stop=stop) -> None:
            save(*arguments)
            saves.append(1)
            if len(saves) == stop:
                raise Killed

        stopped._save = save_and_die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            stopped.run("stopped")
        resumed = make_trainer(tiny, method, tmp_path / "stopped", **settings)
        resumed.run("resumed")
        resumed.checkpoint.remove()
        assert to_bytes(resumed.network.state_dict()) == to_bytes(whole.network.state_dict())
        tables = ({k: v for k, v in t.tables.items() if k != "cost"} for t in (resumed, whole))
        assert next(tables) == next(tables)


def test_how_batches_are_made_belongs_to_runs_that_depend_on_them() -> None:
    configs = [load_experiment(published()[name]).run_config("gpm", 0) for name in ("gpm_cifar100", "gpm_pmnist")]
    assert [config.get("batch_norm_version") for config in configs] == [3, None]


def test_statistics_of_batches_are_of_mixed_classes(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path)
    test = trainer.sequence.test(0)
    order = test.labels.argsort()
    by_class = replace(test, images=test.images[order], labels=test.labels[order])
    classes: list[int] = []
    batch = Examples.batch

    def spy(examples: Examples, index: Tensor) -> tuple[Tensor, Tensor]:
        x, labels = batch(examples, index)
        classes.append(len(labels.unique()))
        return x, labels

    monkeypatch.setattr(Examples, "batch", spy)
    monkeypatch.setattr(MultiHeadNetwork, "batch_statistics", True)
    assert trainer.evaluate(by_class, 0) == trainer.evaluate(by_class, 0), "the same batches every time"
    assert min(classes) == 5


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_statistics_are_those_of_the_first_task(method: str, tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, method, tmp_path, network=RESNET, training__epochs=1)
    after_task, seen = trainer.method.after_task, []

    def statistics() -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in trainer.network.named_buffers() if "running" in name}

    def spy(task: int, examples: Examples) -> None:
        seen.append(statistics())
        after_task(task, examples)
        seen.append(statistics())

    trainer.method.after_task = spy  # type: ignore[method-assign]
    before, fixed = statistics(), not METHODS[method].moves_statistics
    trainer.run("test")
    assert len(seen) == 4
    for name, value in before.items():
        assert not torch.equal(value, seen[0][name]), "the first task moves them"
        first = [torch.equal(seen[0][name], later[name]) for later in seen]
        retrained = method == "packnet"  # whose statistics are each task's own
        assert first == [True, not retrained, fixed, fixed], "nothing does afterwards, but where nothing is forgotten"


def test_single_task_is_tested_with_the_network_of_each_task(tiny: Path, tmp_path: Path) -> None:
    alone, plain = (make_trainer(tiny, method, tmp_path / method) for method in ("single-task", "sgd"))
    for trainer in (alone, plain):
        trainer.run("test")
    (first, again, second), (expected, forgotten, _) = alone.tables["accuracy"], plain.tables["accuracy"]
    assert first == expected
    assert (again["accuracy"], again["loss"]) == (first["accuracy"], first["loss"])
    assert forgotten["loss"] != expected["loss"]
    assert second["accuracy"] > 0.5


def test_joint_trains_and_validates_on_all_tasks_so_far(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny, "joint", tmp_path / "c", data__validation=0.2)
    parts = [trainer.sequence.task(t) for t in (0, 1)]
    train_epoch, evaluate = trainer._train_epoch, trainer.evaluate
    trained: list[int] = []
    valid: list[tuple[float, float]] = []

    def spy(step: Step, examples: Examples) -> float:
        trained.append(len(examples))
        return train_epoch(step, examples)

    def by_task(examples: Examples, task: int, *, penalty: bool = False) -> tuple[float, float]:
        if penalty:
            alone = [(len(part.valid), evaluate(part.valid, t)) for t, part in enumerate(parts[: task + 1])]
            total = sum(n for n, _ in alone)
            valid.append(tuple(sum(n * each[k] for n, each in alone) / total for k in (0, 1)))  # type: ignore[arg-type]
        return evaluate(examples, task, penalty=penalty)

    monkeypatch.setattr(trainer, "_train_epoch", spy)
    monkeypatch.setattr(trainer, "evaluate", by_task)
    trainer.run("test")
    first, second = (len(part.train) for part in parts)
    assert trained == [first] * 3 + [first + second] * 3
    recorded = [(row["valid_loss"], row["valid_accuracy"]) for row in trainer.tables["history"]]
    for actual, expected in zip(recorded, valid, strict=True):
        assert actual == pytest.approx(expected, rel=1e-5)


def test_joint_forgets_nothing(tiny: Path, tmp_path: Path) -> None:
    losses = {}
    for method in ("joint", "sgd"):
        trainer = make_trainer(tiny, method, tmp_path / method)
        trainer.run("test")
        losses[method] = [row["loss"] for row in trainer.tables["accuracy"]]
    assert losses["joint"][0] == losses["sgd"][0], "one task is all tasks"
    assert losses["joint"][1] < losses["joint"][0] < losses["sgd"][1]


def test_joint_at_once_trains_once_and_on_all_tasks(tiny: Path, tmp_path: Path) -> None:
    settings = {"methods__joint__at_once": True}
    trainer = make_trainer(tiny, "joint", tmp_path / "once", **settings)
    trainer.run("test")
    assert trainer.trained == [3, 0]
    assert {row["task"] for row in trainer.tables["history"]} == {0}
    first, again, second = trainer.tables["accuracy"]
    assert (first["accuracy"], first["loss"]) == (again["accuracy"], again["loss"]), "nothing moves after it"
    plain = make_trainer(tiny, "sgd", tmp_path / "plain")
    assert second["loss"] < plain.evaluate(plain.sequence.test(1), 1)[0], "the second task is learned"

    stopped = make_trainer(tiny, "joint", tmp_path / "stopped", **settings)
    stopped._finish_task = lambda _: sys.exit(1)  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        stopped.run("test")
    resumed = make_trainer(tiny, "joint", tmp_path / "stopped", **settings)
    resumed.run("test")
    assert to_bytes(resumed.network.state_dict()) == to_bytes(trainer.network.state_dict())


def test_joint_normalises_by_one_task_as_in_testing(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """Where a prediction depends on its batch, one of all tasks would have other statistics than those of testing."""
    batch, tasks = Examples.batch, []

    def spy(examples: Examples, index: Tensor) -> tuple[Tensor, Tensor]:
        tasks.append(1 if examples.tasks is None else len(examples.tasks[index].unique()))
        return batch(examples, index)

    monkeypatch.setattr(Examples, "batch", spy)
    most = []
    for batch_statistics, mixed in ((False, False), (True, False), (True, True)):
        monkeypatch.setattr(MultiHeadNetwork, "batch_statistics", batch_statistics)
        settings = {"methods__joint__at_once": True, "methods__joint__mixed": mixed, "training__epochs": 1}
        trainer = make_trainer(tiny, "joint", tmp_path / f"{batch_statistics} {mixed}", **settings)
        tasks.clear()
        trainer.run("test")
        most.append(max(tasks))
    assert most == [2, 1, 2]


def test_seeds_and_methods_start_from_addressed_randomness(tiny: Path, tmp_path: Path) -> None:
    first = make_trainer(tiny, "sgd", tmp_path / "a").network.state_dict()
    torch.rand(7)  # whatever else drew from the global generator
    again = make_trainer(tiny, "ewc", tmp_path / "b").network.state_dict()
    assert to_bytes(first) == to_bytes(again)


def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path / "c", training__lr=1e30)
    with pytest.raises(BlipError, match=r"task 0, epoch 0: the loss is .*nan.*training\.lr") as caught:
        trainer.run("test")
    assert "\n" not in str(caught.value)
    assert not trainer.tables["accuracy"]


def test_weights_that_a_task_ends_with_must_give_a_finite_loss(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, "packnet", tmp_path / "c", methods__packnet__retrain_lr=1e30)
    with pytest.raises(DivergedError, match=r"task 0: learned, but then its loss is nan.*methods\.packnet"):
        trainer.run("test")
    assert not trainer.tables["accuracy"]


def test_an_image_alone_is_refused_where_batches_normalise_themselves(tiny: Path, tmp_path: Path) -> None:
    network = {"name": "alexnet", "mul": 0.1, "hidden": [8, 8], "batch_norm": True}
    normed: dict[str, Any] = {"network": network, "data__sources__0__pad_to": 16}
    make_trainer(tiny, "sgd", tmp_path, **normed, training__batch_size=2)
    make_trainer(tiny, "sgd", tmp_path, training__batch_size=1)
    expected = r"training\.batch_size, or the images of a task: expected at least 2"
    with pytest.raises(BlipError, match=expected):
        make_trainer(tiny, "sgd", tmp_path, **normed, training__batch_size=1)
    with pytest.raises(BlipError, match=expected):
        make_trainer(tiny, "sgd", tmp_path, **normed, data__validation=0.002)
    with pytest.raises(BlipError, match=r"methods\.gpm\.images: expected 2 or more"):
        make_trainer(tiny, "gpm", tmp_path, **normed, methods__gpm__images=[1])


@pytest.mark.parametrize(("method", "settings"), [("blip", {}), ("ewc", {"methods__ewc__fisher": "exact"})])
def test_a_task_of_one_class_is_refused_before_it_trains(
    method: str, settings: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(BlipError, match=rf"methods\.{method}: expected two classes or more in each task"):
        make_trainer(tiny, method, tmp_path, data__sources__0__classes_per_task=1, **settings)
    make_trainer(tiny, "ewc", tmp_path, data__sources__0__classes_per_task=1)
    one_head = MultiHeadNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), 4, [5, 1], one_head=True)
    METHODS["ewc"](one_head, METHODS["ewc"].Settings(fisher="exact"), 0)  # which has classes to choose among


def test_everything_measured_is_there(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, "blip", tmp_path / "c")
    trainer.run("test")
    pairs = [(row["task_learned"], row["task"]) for row in trainer.tables["accuracy"]]
    assert pairs == [(0, 0), (1, 0), (1, 1)]
    assert all(0 <= row["accuracy"] <= 1 and math.isfinite(row["loss"]) for row in trainer.tables["accuracy"])
    first, last = (
        sum(row["frozen_bits"] * row["parameters"] for row in trainer.tables["bits"] if row["task_learned"] == t)
        for t in (0, 1)
    )
    assert 0 < first <= last
    parameters = sum(row["parameters"] for row in trainer.tables["bits"] if row["task_learned"] == 1)
    assert parameters == sum(p.numel() for p in trainer.network.features.parameters())
    assert {row["phase"] for row in trainer.tables["cost"]} == {"train", "evaluate", "consolidate", "checkpoint"}


def test_a_second_process_may_not_train_the_same_run(tmp_path: Path) -> None:
    with (
        Checkpoint(tmp_path / "c").held(),
        pytest.raises(BlipError, match="another process is training this run"),
        Checkpoint(tmp_path / "c").held(),
    ):
        pass


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c")
    checkpoint.save({"task": 3, "x": torch.ones(100)})
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BlipError, match=r"checkpoint\.pt: damaged checkpoint"):
        checkpoint.load(torch.device("cpu"))
    assert checkpoint.load(torch.device("cpu")) is None
