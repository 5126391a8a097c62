"""Which steps are run eagerly, recorded and replayed; on a CPU, with a stand-in for CUDA's graphs."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in_cuda import FakeGraph, stand_in_cuda
from test_image_training import make_trainer

from blip.methods import METHODS
from blip.training.checkpoint import to_bytes
from blip.training.descent import GradientDescent
from blip.training.graphs import WARM_UP, GraphedStep

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def recordings() -> Iterator[list[FakeGraph]]:
    with stand_in_cuda() as made:
        yield made


def test_every_batch_is_trained_on_once_in_order() -> None:
    ran: list[list[int]] = []
    step = GraphedStep(lambda index: ran.append(index.tolist()), 4, CPU)
    batches = list(torch.arange(42).split(4))  # the last has two
    for index in [*batches, *batches]:
        step(index)
    assert ran == [index.tolist() for index in [*batches, *batches]]
    assert step.graph is not None
    assert step.graph.replays == 2 * 10 - WARM_UP, "all but the warm-up and the two short ones"


def test_all_recordings_share_a_stream() -> None:
    """Each stream that cuBLAS and the memory allocator have seen costs memory."""
    steps = [GraphedStep(lambda index: None, 4, CPU) for _ in range(2)]
    assert steps[0].side_stream is steps[1].side_stream


def graphed_trainer(*arguments: Any, **values: Any) -> Any:
    """A trainer on the CPU that records its steps."""
    trainer = make_trainer(*arguments, **values)
    trainer.cuda_graphs = True
    return trainer


@pytest.mark.parametrize("method", METHODS)
def test_recorded_training_gives_the_same_bytes(
    method: str, tiny: Path, tmp_path: Path, recordings: list[FakeGraph]
) -> None:
    graphed = graphed_trainer(tiny, method, tmp_path / "graphed")
    graphed.run("graphed")
    eager = make_trainer(tiny, method, tmp_path / "eager")
    eager.run("eager")
    assert to_bytes(graphed.network.state_dict()) == to_bytes(eager.network.state_dict())
    assert graphed.tables["history"] == eager.tables["history"]
    assert len(recordings) == 2, "one a task"
    assert all(graph.replays > 20 for graph in recordings)


def test_a_new_learning_rate_needs_no_new_recording(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recordings: list[FakeGraph]
) -> None:
    settings = {"training__epochs": 4, "training__lr_patience": 2}
    graphed = graphed_trainer(tiny, "sgd", tmp_path / "c", **settings)
    losses = iter([1.0, 2.0, 3.0, 4.0] * 2)
    evaluate = graphed.evaluate

    def report(examples: object, task: int, *, penalty: bool = False) -> tuple[float, float]:
        return (next(losses), 0.5) if penalty else evaluate(examples, task)

    monkeypatch.setattr(graphed, "evaluate", report)
    graphed.run("test")
    rates = [row["lr"] for row in graphed.tables["history"]]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1 / 3] * 2)
    assert len(recordings) == 2, "one a task"


def test_a_cpu_trains_eagerly(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, "sgd", tmp_path)
    assert not trainer.cuda_graphs
    descent = GradientDescent(trainer.network.parameters(), 0.1)
    assert not isinstance(trainer._step(descent, trainer.sequence.task(0).train), GraphedStep)


# Games


@pytest.mark.parametrize("method", ["blip", "ewc", "sgd", "sgd-frozen", "single-task"])
def test_recorded_updates_of_games_give_the_same_bytes(
    method: str, tmp_path: Path, recordings: list[FakeGraph]
) -> None:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    path = tmp_path / "quick.yaml"
    path.write_text(games.QUICK)
    eager = games.make_trainer(path, method, tmp_path / "eager", ppo__steps=64)
    eager.run("eager")

    graphed = games.make_trainer(path, method, tmp_path / "graphed", ppo__steps=64)
    graphed.cuda_graphs = True
    graphed.run("graphed")
    assert to_bytes(graphed.network.state_dict()) == to_bytes(eager.network.state_dict())
    assert graphed.tables["updates"] == eager.tables["updates"]
    updates = [graph.replays for graph in recordings if graph.replays == 2 * 2 * 2 - WARM_UP]
    assert len(updates) == 2, "one graph for each game"
    assert len(recordings) == 2 + (1 + 1) + (2 + 2), "and one for each game's evaluation, twice in each game"


def test_a_run_on_games_goes_on_whatever_device_its_checkpoint_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CUDA device the optimizer is capturable and its learning rate a tensor; Adam takes neither on a CPU."""
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    path = tmp_path / "quick.yaml"
    path.write_text(games.QUICK)
    whole = games.make_trainer(path, "sgd", tmp_path / "whole")
    whole.run("whole")
    stopped = games.make_trainer(path, "sgd", tmp_path / "stopped")
    save = stopped.checkpoint.save

    def save_as_on_a_gpu(state: dict[str, Any]) -> None:
        for group in state["learning"]["optimizer"]["param_groups"] if state["learning"] else ():
            group.update(capturable=True, lr=torch.tensor(group["lr"]))
        save(state)
        if state["done"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped.checkpoint, "save", save_as_on_a_gpu)
    with pytest.raises(KeyboardInterrupt):
        stopped.run("stopped")
    resumed = games.make_trainer(path, "sgd", tmp_path / "stopped")
    resumed.run("resumed")
    assert to_bytes(resumed.network.state_dict()) == to_bytes(whole.network.state_dict())


def test_a_learned_game_leaves_nothing_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    path = tmp_path / "quick.yaml"
    path.write_text(games.QUICK)
    trainer = games.make_trainer(path, "sgd", tmp_path / "c", ppo__steps=32)
    made: list[Any] = []
    make = trainer._fresh_ppo
    monkeypatch.setattr(trainer, "_fresh_ppo", lambda: made.append(make()) or made[-1])
    trainer.run("test")
    assert len(made) == 2
    assert all(ppo._step is None and not ppo._rollout for ppo in made)


def test_a_learned_task_leaves_nothing_recorded(tiny: Path, tmp_path: Path, recordings: list[FakeGraph]) -> None:
    """At once, without Python's search for circles: the next task's recording then has the memory."""
    gc.disable()
    try:
        trainer = graphed_trainer(tiny, "hat", tmp_path)
        trainer.run("test")
        alive = [weakref.ref(graph) for graph in recordings]
        recordings.clear()
        assert [graph() for graph in alive] == [None, None]
    finally:
        gc.enable()
