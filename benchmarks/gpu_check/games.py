"""PPO on games: steps a second, acting and learning apart, and what an update waits for."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import EXPERIMENTS, Row, Setting, cpus, median, row
from images import waits_of

from blip.config import load_experiment
from blip.games.atari import NativeAtari
from blip.games.evaluation import by_network, play
from blip.games.game_experiment import GameExperiment
from blip.games.game_trainer import GameTrainer
from blip.training.checkpoint import Checkpoint

GAME = "Boxing"
QUICK = {
    "network.channels": [4, 4, 4],
    "network.hidden": 8,
    "ppo.environments": 2,
    "ppo.rollout": 8,
    "ppo.mini_batches": 2,
    "ppo.epochs": 2,
    "methods.blip.fisher_batch_size": 8,
    "methods.blip.fisher_batches": 2,
}


class Learner:
    """The first game of `atari6`, learned by `blip` as in a run."""

    def __init__(self, setting: Setting, precision: str, *, graphs: bool) -> None:
        changes = {"games": [GAME], "ppo.precision": precision} | (QUICK if setting.quick else {})
        experiment = load_experiment(EXPERIMENTS / "atari6.yaml", changes)
        assert isinstance(experiment, GameExperiment)
        with tempfile.TemporaryDirectory() as folder:
            inputs = experiment.inputs(0, Path(folder), Path(folder), setting.device)
            self.trainer = experiment.trainer("blip", 0, inputs, Checkpoint(Path(folder)), setting.device)
        self.trainer.cuda_graphs = graphs
        self.config = experiment.ppo
        self.ppo = self.trainer._fresh_ppo()
        self.ppo.start(0)
        for _ in range(2):
            self.collect()
            self.learn(1)

    def collect(self) -> None:
        self.ppo.collect()

    def learn(self, updates: int) -> None:
        for _ in range(updates):
            self.ppo.train()


def emulation(setting: Setting) -> Iterator[Row]:
    """The emulator alone, with random actions."""
    count, steps = (2, 8) if setting.quick else (16, 100)
    for threads in sorted({min(n, cpus()) for n in (1, 4, 8, 16)}):
        environments = NativeAtari(GAME, count, threads=threads)
        environments.reset()
        random = np.random.default_rng(0)

        def work(environments: Any = environments, random: Any = random) -> None:
            for _ in range(steps):
                environments.step(random.integers(0, 18, count))

        work()
        rates = [count * steps / setting.seconds(work) for _ in range(3)]
        yield median(f"emulation alone, {threads} threads", rates, "agent steps/s")
        environments.close()


def learning(setting: Setting) -> Iterator[Row]:
    """Rollouts and updates of the published network."""
    torch.set_num_threads(1 if setting.quick else min(16, cpus()))
    for precision in ("float32", "bfloat16"):
        for graphs in (True, False):
            name = f"PPO, {precision}, {'graphs' if graphs else 'eager'}"
            if setting.left() < 8:
                yield row(f"{name}: left out", "no time")
                continue
            learner = Learner(setting, precision, graphs=graphs)
            rounds = 1 if setting.quick else 5
            pairs = [
                (setting.seconds(learner.collect), setting.seconds(partial(learner.learn, 1))) for _ in range(rounds)
            ]
            steps = learner.config.steps_per_update
            yield median(f"{name}: rollout", [collect for collect, _ in pairs], "s")
            yield median(f"{name}: update", [learn for _, learn in pairs], "s")
            rates = [steps / (collect + learn) for collect, learn in pairs]
            yield median(name, rates, "agent steps/s", **({"target": "≥ 6000"} if graphs else {}))
            found = waits_of(learner.learn, setting)
            yield row(f"{name}: waits and copies of pageable memory an update", found["waits"])
            if graphs and precision == "float32":
                yield evaluation(learner.trainer, setting)
            learner.ppo.release()


def evaluation(trainer: GameTrainer, setting: Setting) -> Row:
    """Ten games played for evaluation, cut after a thousand steps."""
    count, frames = (2, 40) if setting.quick else (10, 4000)
    trainer.network.eval()
    lengths: list[int] = []

    def work() -> None:
        act = by_network(trainer.network, 0, setting.device, graphs=True)
        played = play(GAME, act, count, 0, max_frames=frames, threads=torch.get_num_threads())
        lengths.append(sum(game.length for game in played))

    seconds = setting.seconds(work)
    return row("evaluation, ten games at a time", lengths[0] / seconds, "agent steps/s")


def games(setting: Setting) -> Iterator[Row]:
    works: list[Callable[[Setting], Iterator[Row]]] = [learning, emulation]
    for work in works:
        yield from work(setting)
