"""Games learned one after another: what is recorded, what methods keep, exact resume."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from run_folders import sign
from test_data import one_line

pytest.importorskip("stable_baselines3")
pytest.importorskip("ale_py")

from blip.config import load_experiment
from blip.errors import BlipError, DivergedError
from blip.games.atari import action_count
from blip.games.evaluation import at_random, play
from blip.games.game_experiment import GameExperiment
from blip.games.game_trainer import GameTrainer
from blip.games.replay import replay
from blip.methods import METHODS as ALL_METHODS
from blip.record import run_files, run_folder
from blip.results import load_runs
from blip.results.game_pictures import write_game_pictures
from blip.runs.train import Training, train_run
from blip.training.checkpoint import Checkpoint

CPU = torch.device("cpu")
METHODS = ["blip", "ewc", "sgd", "sgd-frozen", "single-task"]
QUICK = """\
name: quick
games: [SpaceInvadersNoFrameskip-v4, KungFuMaster]
network: {channels: [4, 4, 4], hidden: 8}
ppo: {steps: 300, environments: 2, rollout: 16, mini_batches: 2, epochs: 2, restart_updates: 3}
evaluation: {episodes: 2, every_updates: 6, max_frames: 300}
methods:
  blip: {f_prior: 1e-13, fisher_batch_size: 8, fisher_batches: 4, n: max-fan-in-outputs, initialisation: network}
  sgd: {}
  sgd-frozen: {}
  ewc: {fisher: sampled, over_tasks: sum, fisher_batch_size: 8}
  single-task: {}
  si: {}
  mas: {batch_size: 8}
  lwf: {}
  imm-mode: {fisher_batch_size: 8}
"""
"""Nine updates of 32 steps for each game."""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return path


def make_trainer(config: Path, method: str, folder: Path, **overrides: Any) -> GameTrainer:
    """One that plays one game in each evaluation, since what takes time is to make emulators."""
    changes = {k.replace("__", "."): v for k, v in overrides.items()}
    experiment = load_experiment(config, {"evaluation.episodes": 1} | changes)
    assert isinstance(experiment, GameExperiment)
    inputs = experiment.inputs(0, folder, folder, CPU)
    trainer: GameTrainer = experiment.trainer(method, 0, inputs, Checkpoint(folder), CPU)
    trainer.seconds_between_checkpoints = 0
    return trainer


def results(trainer: GameTrainer) -> tuple[dict[str, torch.Tensor], dict[str, list[Any]]]:
    tables = {name: [repr(row) for row in rows] for name, rows in trainer.tables.items() if name != "cost"}
    return trainer.network.state_dict(), tables


# Configuration


def test_the_published_experiment() -> None:
    experiment = load_experiment(ROOT / "config" / "experiments" / "atari6.yaml")
    assert isinstance(experiment, GameExperiment)
    assert experiment.games == ["KungFuMaster", "Boxing", "Jamesbond", "Krull", "Riverraid", "SpaceInvaders"]
    ppo = experiment.ppo
    assert (ppo.steps, ppo.environments, ppo.rollout, ppo.mini_batches, ppo.epochs) == (10**7, 16, 125, 8, 4)
    assert (ppo.lr, ppo.clip, ppo.gamma, ppo.gae_lambda) == (2.5e-4, 0.1, 0.99, 0.95)
    assert (ppo.entropy, ppo.value, ppo.clip_norm) == (0.01, 0.5, 0.5)
    assert (ppo.updates, ppo.steps_per_update) == (5000, 2000)
    assert (experiment.network.channels, experiment.network.hidden) == ((32, 64, 128), 1024)
    assert (experiment.evaluation.episodes, experiment.evaluation.every_updates) == (10, 100)
    blip, ewc = (experiment.run_config(name, 0)["method"] for name in ("blip", "ewc"))
    assert (blip["f_prior"], blip["fisher_batch_size"], blip["fisher_batches"]) == (5e-18, 62, 32)
    assert (blip["n"], blip["weight_range"], blip["max_bits"]) == ("max-fan-in-outputs", 6, 20)
    assert blip["initialisation"] == "network"
    assert (ewc["strength"], ewc["fisher"], ewc["over_tasks"]) == (5000, "sampled", "sum")
    assert (ewc["fisher_batch_size"], ewc["fisher_batches"], ewc["form"]) == (62, 32, "online")
    assert sorted(experiment.methods) == sorted(METHODS)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("games", ["Chess2000"], "game Chess2000: ale-py has no such game"),
        ("games", ["ALE/Boxing-v5"], "write Boxing or BoxingNoFrameskip-v4"),
        ("games", ["Boxing", "Krull", "BoxingNoFrameskip-v4"], "games: expected different games, found Boxing more"),
        ("ppo.mini_batches", 5, "mini_batches: expected whole ones of 2 × 16 steps, found 5"),
        ("ppo.steps", 31, "steps: expected at least one update of 32, found 31"),
        ("ppo.learning_rate", 1, "ppo.learning_rate: unknown key"),
        ("ppo.backend", "sb3", "ppo.backend: unknown key"),
    ],
)
def test_bad_settings_are_one_line(quick: Path, key: str, value: Any, problem: str) -> None:
    with pytest.raises(BlipError) as error:
        load_experiment(quick, {key: value})
    assert problem in one_line(error)
    assert "quick.yaml" in one_line(error)


def test_names_of_one_game_are_one_run(quick: Path) -> None:
    plain = load_experiment(quick, {"games": ["SpaceInvaders", "KungFuMasterNoFrameskip-v4"]})
    assert plain.run_config("sgd", 0) == load_experiment(quick).run_config("sgd", 0)


# A run


@pytest.mark.parametrize("method", METHODS)
def test_a_run_folder_holds_what_was_measured(method: str, quick: Path, tmp_path: Path) -> None:
    episodes = 2 if method == "blip" else 1
    experiment = load_experiment(quick, {"evaluation.episodes": episodes})
    folder = train_run(experiment, method, 0, tmp_path, Training(tmp_path, tmp_path, tmp_path / "c"))
    assert {path.name for path in folder.iterdir()} == set(run_files(experiment.tables_of(method)))
    tables = {path.stem: list(csv.DictReader(path.open())) for path in folder.glob("*.csv")}
    about = json.loads((folder / "run.json").read_text())
    assert about["tasks"] == [
        {"name": "SpaceInvaders", "outputs": 6, "trained": 9 * 32},
        {"name": "KungFuMaster", "outputs": 14, "trained": 9 * 32},
    ]
    assert {"ale-py", "stable-baselines3"} <= set(about["provenance"]["versions"])

    keys = [(int(r["task_training"]), int(r["update"]), int(r["task"]), r["agent"]) for r in tables["returns"]]
    first = [(0, 0, 0, "random"), *((0, u, 0, "greedy") for u in (0, 6, 9))]
    second = [(1, 0, 1, "random"), *((1, u, t, "greedy") for u in (0, 6, 9) for t in (0, 1))]
    assert keys == [key for key in first + second for _ in range(episodes)]
    assert [(int(r["task"]), int(r["update"])) for r in tables["updates"]] == [(t, u) for t in (0, 1) for u in range(9)]
    lr = [float(r["lr"]) for r in tables["updates"]]
    assert lr == pytest.approx([2.5e-4 * (1 - j / 9) for j in range(9)] * 2)

    written = write_game_pictures(load_runs([tmp_path]), tmp_path / "games")
    assert written == [tmp_path / "games" / "quick" / method / f"{name}.gif" for name in ("1-1", "2-1", "2-2")]
    for picture in written:
        with Image.open(picture) as image:
            assert image.size == (160, 210)
            assert image.n_frames > 1

    steps = [int(r["steps"]) for r in tables["returns"] if r["agent"] == "random"]
    assert steps == [0] * episodes + [9 * 32] * episodes
    for row in tables["mean_returns"]:
        i, j = int(row["task_learned"]), int(row["task"])
        last = [
            float(r["return"]) for r, key in zip(tables["returns"], keys, strict=True) if key == (i, 9, j, "greedy")
        ]
        assert float(row["return"]) == pytest.approx(sum(last) / episodes)
    replays = [(int(r["task_learned"]), int(r["task"])) for r in tables["replays"]]
    assert replays == [(0, 0), (1, 0), (1, 1)]
    assert ("bits" in tables) == (method == "blip")
    phases = {r["phase"] for r in tables["cost"]}
    assert phases - {"checkpoint"} == {"rollout", "update", "evaluate", "consolidate"}


def test_games_may_be_played_with_sampled_actions(quick: Path, tmp_path: Path) -> None:
    trainer = make_trainer(quick, "sgd", tmp_path / "c", evaluation__greedy=False, games=["SpaceInvaders"])
    trainer.run("test")
    rows = [row for row in trainer.tables["returns"] if row["update"]]
    assert {row["agent"] for row in rows} == {"sampled"}
    actions = trainer.tables["replays"][0]["actions"]
    assert set(filter(str.islower, actions)) == set("abcdef"), "an agent that hardly learned draws every action"
    greedy = make_trainer(quick, "sgd", tmp_path / "g", games=["SpaceInvaders"])
    greedy.run("test")
    assert len(set(filter(str.islower, greedy.tables["replays"][0]["actions"]))) < 6


@pytest.mark.parametrize("game", ["Boxing", "KungFuMaster", "SpaceInvaders"])
def test_a_recorded_game_is_played_again_in_colour(game: str) -> None:
    actions = action_count(game)
    played = play(game, at_random(actions, 0), 3, 7, max_frames=3000)
    assert len({game.actions for game in played}) == 3
    for recorded in played:
        screens, returns = zip(*replay(game, recorded.seed, recorded.actions), strict=True)
        assert returns[-1] == recorded.result
        assert len(screens) == len(recorded.actions)
        assert recorded.length == sum(letter.islower() for letter in recorded.actions)
        assert screens[0].shape == (210, 160, 3)
        assert np.ptp(screens[0].astype(int), axis=2).any(), "in colour"


@pytest.mark.parametrize("game", ["KungFuMaster", "Krull"])
def test_the_recorded_results_games_are_played_again(game: str) -> None:
    run = ROOT / "results" / "recorded" / "atari2" / "runs" / "atari2" / "sgd" / "seed0"
    task = str(["KungFuMaster", "Krull"].index(game))
    recorded = next(row for row in csv.DictReader((run / "replays.csv").open()) if row["task"] == task)
    *_, (_, result) = replay(game, int(recorded["environment_seed"]), recorded["actions"])
    assert result == float(recorded["return"])


def test_another_emulators_game_is_one_line(quick: Path, tmp_path: Path) -> None:
    experiment = load_experiment(quick, {"games": ["SpaceInvaders"], "ppo.steps": 32, "evaluation.episodes": 1})
    folder = train_run(experiment, "sgd", 0, tmp_path, Training(tmp_path, tmp_path, tmp_path / "c"))
    with (folder / "replays.csv").open() as file:
        (row,) = csv.DictReader(file)
    row["return"] = str(float(row["return"]) + 5)
    (folder / "replays.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    sign(folder)
    with pytest.raises(BlipError, match="SpaceInvaders: played again it returns") as error:
        write_game_pictures(load_runs([tmp_path]), tmp_path / "games")
    assert "\n" not in one_line(error)
    assert not list((tmp_path / "games").rglob("*.gif"))


def test_nothing_is_left_in_the_temporary_folder(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    make_trainer(quick, "sgd", tmp_path / "c", ppo__steps=32).run("test")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "settings", [{}, {"ppo__mini_batches": 1, "ppo__epochs": 1, "ppo__steps": 32}], ids=["a loss", "the last step"]
)
def test_what_is_not_finite_is_one_line(settings: dict[str, int], quick: Path, tmp_path: Path) -> None:
    trainer = make_trainer(quick, "sgd", tmp_path / "c", ppo__lr=1e30, **settings)
    with pytest.raises(DivergedError, match=r"^SpaceInvaders, update \d: the losses are .* lower ppo.lr") as error:
        trainer.run("test")
    one_line(error)


def test_another_game_leaves_the_first_ones_heads_alone(quick: Path, tmp_path: Path, monkeypatch: Any) -> None:
    trainer = make_trainer(quick, "blip", tmp_path / "c")
    kept: list[dict[str, torch.Tensor]] = []
    after_task = trainer.method.after_task

    def keep(task: int, train: Any) -> None:
        after_task(task, train)
        kept.append({k: v.clone() for k, v in trainer.network.state_dict().items()})

    monkeypatch.setattr(trainer.method, "after_task", keep)
    trainer.run("test")
    moved = {key for key in kept[0] if not torch.equal(kept[0][key], kept[1][key])}
    assert {key.partition(".")[0] for key in moved} == {"features", "heads", "critics"}
    assert not {key for key in moved if key.startswith(("heads.0", "critics.0"))}
    state = trainer.method.blip  # type: ignore[attr-defined]
    assert state.tasks == 2


SUPERVISED = [name for name, method in ALL_METHODS.items() if method.supervised]


@pytest.mark.parametrize("method", sorted(set(ALL_METHODS).difference(METHODS, SUPERVISED)))
def test_methods_that_the_paper_has_for_classification_alone_learn_games_too(
    method: str, quick: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(quick, method, tmp_path / "c", ppo__steps=64)
    before = {name: value.clone() for name, value in trainer.network.features.state_dict().items()}
    trainer.run("test")
    assert [(row["task_learned"], row["task"]) for row in trainer.tables["mean_returns"]] == [(0, 0), (1, 0), (1, 1)]
    assert not torch.equal(trainer.network.features.state_dict()["0.weight"], before["0.weight"])


# Resume


@pytest.mark.parametrize("method", [METHODS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:])])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(
    method: str, quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer(quick, method, tmp_path / "whole")
    whole.run("whole")
    for stop in (3, 8, 5):  # updates; from the last checkpoint on, they end in the first game and twice in the second
        trainer = make_trainer(quick, method, tmp_path / "stopped")
        update, done = trainer._update, []

        def stopping(ppo: Any, progress: Any, update: Any = update, done: Any = done, stop: int = stop) -> None:
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(update(ppo, progress))

        monkeypatch.setattr(trainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            trainer.run("stopped")
    last = make_trainer(quick, method, tmp_path / "stopped")
    last.run("going on")
    weights, tables = results(whole)
    resumed_weights, resumed_tables = results(last)
    assert resumed_tables == tables
    torch.testing.assert_close(resumed_weights, weights, rtol=0, atol=0)


COMMAND = "import sys, blip.training.loop as loop; loop.SECONDS_BETWEEN_CHECKPOINTS = 0; "
COMMAND += "import torch; torch.set_num_threads(1); from blip.cli import main; sys.exit(main(sys.argv[1:]))"


def start(config: Path, folder: Path) -> "subprocess.Popen[bytes]":
    arguments = ["train", config, "--method", "blip", "--out", folder, "--checkpoints", folder / "checkpoints"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments), "--device", "cpu", "--set", "evaluation.episodes=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bytes(kills: int, quick: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(quick, whole)
    assert process.wait() == 0, process.stderr.read()  # type: ignore[union-attr]
    moments, actual = random.Random(kills), 0
    while actual < kills:
        process = start(quick, killed)
        old = {p: p.stat().st_mtime_ns for p in killed.glob("checkpoints/*/checkpoint.pt")}
        while process.poll() is None:  # until it has learned something since it was started
            new = {p: p.stat().st_mtime_ns for p in killed.glob("checkpoints/*/checkpoint.pt")}
            if new and new != old:
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()  # type: ignore[union-attr]
            (run_folder(killed, "quick", "blip", 0) / "run.json").unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        actual += 1
    process = start(quick, killed)
    assert process.wait() == 0, process.stderr.read()  # type: ignore[union-attr]
    for file in ("mean_returns.csv", "returns.csv", "updates.csv", "bits.csv", "trace.csv", "weights.safetensors"):
        expected = (run_folder(whole, "quick", "blip", 0) / file).read_bytes()
        assert (run_folder(killed, "quick", "blip", 0) / file).read_bytes() == expected, file
