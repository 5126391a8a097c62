"""What fails on a GPU alone, looked for on a CPU: tensors and generators of the wrong side, steps that wait for the
device or copy pageable memory, and memory that a recorded step would not see replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_device import Watched, pretended_device
from test_gpu import GAME_METHODS, NETWORKS, image_trainer
from test_image_training import CPU, Killed, make_trainer
from torch import nn

from blip import BLIP
from blip.methods import METHODS
from blip.networks import Dropout, copied
from blip.seeding import generator
from blip.training.descent import GradientDescent

ON_DEVICE = torch.device("cpu")
"""As `device=` names it; a tensor of the host is made without."""


# The stand-ins themselves


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.ones(3),
        lambda x: x.index_select(0, torch.arange(2)),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.stack([x, torch.from_numpy(x.numpy().copy())]),
        lambda x: x * torch.ones(3)[:1].exp(),
        lambda x: x * x.cpu(),
        lambda x: torch.multinomial(x, 1, generator=generator(0, "labels")),
        lambda x: torch.randn(3, device=x.device, generator=generator(0, "noise")),
        lambda x: torch.randn(3, generator=generator(0, "noise", device=x.device)),
    ],
)
def test_what_a_gpu_would_refuse_is_found(wrong: Callable[[torch.Tensor], object]) -> None:
    with pretended_device() as problems:
        wrong(torch.ones(3, device=ON_DEVICE))
    assert len(problems) == 1


def test_what_a_gpu_takes_is_no_problem() -> None:
    with pretended_device() as problems:
        x = torch.ones(3, device=ON_DEVICE)
        y = x * torch.tensor(2.0) + torch.arange(3).to(x.device) + x.new_tensor([1, 2, 3])
        y[:2] = torch.zeros(2)
        y.copy_(torch.zeros(3))
        torch.multinomial(x, 1, generator=generator(0, "labels", device=x.device))
        torch.randperm(3, generator=generator(0, "order"))
        torch.nn.Linear(3, 3).to(x.device)(y)
    assert not problems


@pytest.mark.parametrize(
    "wait", [lambda x: float(x.sum()), lambda x: 1 if x.sum() > 0 else 0, lambda x: x[x > 0], lambda x: x.nonzero()]
)
def test_what_waits_for_a_device_is_found(wait: Callable[[torch.Tensor], object]) -> None:
    x = torch.ones(3)
    with Watched() as watched:
        wait(x)
    assert watched.waits


def test_what_is_copied_from_pageable_memory_and_what_is_replaced_is_found() -> None:
    x, kept = torch.ones(3), torch.ones(3)
    with Watched() as first:
        (x + kept).mul_(torch.tensor([1.0, 2.0, 3.0]))
    assert first.constants
    kept = kept.clone()
    with Watched() as second:
        (x + kept).sum()
    assert first.read.keys() != second.read.keys()


# Images


@pytest.mark.parametrize("method", METHODS)
def test_runs_keep_host_and_device_apart(method: str, tiny: Path, tmp_path: Path) -> None:
    """Whole runs, stopped in the second task and resumed."""
    with pretended_device() as problems:
        trainer: Any = make_trainer(tiny, method, tmp_path / "c", device=CPU)
        save, saves = trainer._save, []

        def save_and_die(*arguments: object) -> None:
            save(*arguments)
            saves.append(1)
            if len(saves) == 5:
                raise Killed

        trainer._save = save_and_die
        with pytest.raises(Killed):
            trainer.run("stopped")
        resumed = make_trainer(tiny, method, tmp_path / "c", device=CPU)
        resumed.run("resumed")
        assert resumed.method.measurements() is not None
    assert not problems, sorted(set(problems))


def watched_twice(step: Callable[[], object], between: Callable[[], object]) -> tuple[Watched, Watched]:
    """A step as it may be recorded, and one that would be replayed; between them what goes on meanwhile."""
    for _ in range(4):
        step()
    with Watched() as recorded:
        step()
    between()
    with Watched() as replayed:
        step()
    return recorded, replayed


def check(recorded: Watched, replayed: Watched) -> None:
    assert not recorded.waits
    assert not recorded.constants
    assert recorded.read.keys() == replayed.read.keys(), "memory that was replaced since the step was recorded"


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_steps_can_be_recorded(
    network: str, method: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a second task; meanwhile an epoch ends: validation, best weights, a new learning rate, a new order."""
    monkeypatch.setattr(Dropout, "forward", torch.nn.Dropout.forward)  # a GPU's
    trainer = image_trainer(network, method, tmp_path, "c", CPU, graphs=False, precision=precision)
    trainer.method.before_task(0)
    trainer.method.after_task(0, trainer.sequence.task(0).train)
    trainer.task = 1
    trainer.method.before_task(1)
    data = trainer.method.data_for(1, trainer.sequence)
    descent = GradientDescent(trainer.method.trained_parameters(), 0.1)
    descent.looks = False  # as on a GPU
    step, index = trainer._step(descent, data.train), data.train.indices(32)[0].clone()
    trainer.method.before_epoch(10)
    trainer.network.train()

    def an_epoch_ends() -> None:
        trainer.evaluate(data.valid, 1, penalty=True)
        weights = copied(trainer.network.state_dict())
        descent.rate.fill_(0.01)
        trainer.network.load_state_dict(weights)
        trainer.network.train()
        torch.manual_seed(1)
        trainer.method.before_epoch(10)

    check(*watched_twice(lambda: step(index), an_epoch_ends))


# Games


def game_trainer(method: str, folder: Path, **changes: Any) -> Any:
    """Its games are played in halves, as on a GPU."""
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    path = folder / "quick.yaml"
    path.write_text(games.QUICK)
    trainer = games.make_trainer(path, method, folder / "c", **changes)
    make = trainer._fresh_ppo

    def in_halves() -> Any:
        ppo = make()
        ppo.halves = True
        return ppo

    trainer._fresh_ppo = in_halves  # type: ignore[method-assign]
    return trainer


def test_statistics_from_the_host_are_compared_on_the_device() -> None:
    with pretended_device() as problems:
        features = nn.Sequential(nn.Linear(3, 4, device=ON_DEVICE), nn.BatchNorm1d(4, device=ON_DEVICE))
        fisher = {name: torch.ones_like(p) for name, p in features.named_parameters()}
        blip = BLIP(features, 1e-3, strict=True)
        blip.consolidate(fisher)
        state = blip.state_dict()
        blip.load_state_dict(state | {"statistics": {name: v.cpu() for name, v in state["statistics"].items()}})
        blip.consolidate(fisher)
    assert not problems, sorted(set(problems))


@pytest.mark.slow
def test_a_run_on_games_keeps_host_and_device_apart(tmp_path: Path) -> None:
    with pretended_device() as problems:
        game_trainer("blip", tmp_path, ppo__steps=32).run("test")
    assert not problems, sorted(set(problems))


@pytest.mark.parametrize(
    "method", [m if m in ("blip", "ewc") else pytest.param(m, marks=pytest.mark.slow) for m in GAME_METHODS]
)
def test_updates_and_acting_can_be_recorded(method: str, tmp_path: Path) -> None:
    """Of a second game; meanwhile an update ends, and the next rollout is played."""
    with pretended_device() as problems:
        trainer = game_trainer(method, tmp_path, ppo__precision="bfloat16")
        ppo = second_game(trainer)
    assert not problems, sorted(set(problems))
    index, rows = torch.arange(ppo.batch_size), ppo._acting._rows[0][0]

    def an_update_ends() -> None:
        ppo.collect()
        ppo.train()

    check(*watched_twice(lambda: ppo._train_step(index), an_update_ends))
    check(*watched_twice(lambda: ppo._acting._act_at(rows), an_update_ends))
    ppo.release()


def second_game(trainer: Any) -> Any:
    """PPO after an update of the trainer's second game; the method has learned a rollout of the first one."""
    trainer.method.before_task(0)
    trainer._ppo = trainer._fresh_ppo()
    trainer._ppo.start(0)
    trainer._ppo.collect()
    trainer.method.after_task(0, trainer._examples())
    trainer._ppo.release()
    trainer.task = 1
    trainer.method.before_task(1)
    ppo = trainer._fresh_ppo()
    ppo.start(0)
    ppo.shuffle = generator(0, "mini-batches")
    ppo.collect()
    ppo.train()
    return ppo
