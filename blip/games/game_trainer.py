"""Games learned one after another by PPO with any method attached: evaluation, checkpoints, exact resume."""

import math
import time
from typing import Any, TypeAlias

import numpy as np
import torch

from blip.config import GameExperiment, method_settings
from blip.data import Examples
from blip.errors import BlipError
from blip.games.actor_critic import ActorCriticNetwork
from blip.games.atari import SEEDS, STACK, action_count, make_environments
from blip.games.evaluation import Act, Played, at_random, by_network, play
from blip.games.policy import GamePolicy, attached
from blip.games.ppo import STATISTICS, PublishedPPO
from blip.methods import METHODS
from blip.progress import Progress
from blip.record import GAME_TABLES, TABLES, timed
from blip.seeding import address, generator
from blip.training.checkpoint import Checkpoint

Row: TypeAlias = dict[str, Any]

SECONDS_BETWEEN_CHECKPOINTS = 60.0
COLUMNS = TABLES | GAME_TABLES


class GameTrainer:
    """One run: the games of an experiment learned by one method with one seed.

    `tables` collects what is measured, as rows: returns, updates, accuracy (mean returns), replays, cost, and what the
    method adds. Every random draw is addressed by (seed, purpose, task, update), and every `restart_updates` updates
    the environments are made anew, whether or not a checkpoint is written there; so a run that goes on from a
    checkpoint ends with the same numbers as one that was never stopped (same machine, libraries and threads).
    """

    def __init__(
        self,
        experiment: GameExperiment,
        method: str,
        seed: int,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        cuda_graphs: bool = True,
        seconds_between_checkpoints: float | None = None,
    ) -> None:
        self.games, self.config, self.evaluation = experiment.games, experiment.ppo, experiment.evaluation
        self.seed = seed
        self.checkpoint = checkpoint
        self.device = device
        if seconds_between_checkpoints is None:
            seconds_between_checkpoints = SECONDS_BETWEEN_CHECKPOINTS
        self.seconds_between_checkpoints = seconds_between_checkpoints
        self.actions = [action_count(game) for game in self.games]
        torch.manual_seed(address(seed, "network"))
        features, width = experiment.network.features((STACK, 84, 84))
        self.network = ActorCriticNetwork(features, width, self.actions).to(device)
        settings = method_settings(method, experiment.methods[method], experiment.name)
        self.method = METHODS[method](self.network, settings, seed)
        self.cuda_graphs = cuda_graphs and device.type == "cuda" and self.method.cuda_graphs
        self.tables: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        self.task, self.update = 0, 0
        """The game being learned, and how many of its updates are done."""
        self._seconds: dict[str, float] = {}
        self._last_saved = -math.inf

    def run(self, title: str) -> None:
        """Learn all games, from the checkpoint on where there is one."""
        saved = self.checkpoint.load(self.device)
        with Progress(title, len(self.games), self.config.updates, unit="update", left="about") as progress:
            if saved:
                self._restore(saved)
                progress.say(f"going on at {self.games[self.task]}, update {self.update + 1}")
            while self.task < len(self.games):
                self._learn_game(progress, saved["optimizer"] if saved else None)
                saved = None

    def _learn_game(self, progress: Progress, optimizer_state: Row | None) -> None:
        self.method.before_task(self.task)
        ppo = self._ppo()
        optimizer = ppo.policy.optimizer
        if optimizer_state:
            # How steps are made is this device's business, and their size the schedule's: only the moments are taken.
            optimizer.load_state_dict({**optimizer_state, "param_groups": optimizer.state_dict()["param_groups"]})
        else:
            self._play_at_random()
        resumed = optimizer_state is not None
        while self.update < self.config.updates:
            if not resumed and self.update % self.evaluation.every_updates == 0:
                self._evaluate()
            if self.update % self.config.restart_updates == 0:
                if not resumed:
                    self._save(optimizer)
                self._restart(ppo)
            resumed = False
            with attached(self.method, optimizer):
                self._update(ppo, progress)
        self._finish_game(ppo, progress)

    def _restart(self, ppo: PublishedPPO) -> None:
        """Start new games, which depend on nothing but the place in the run."""
        if self.config.backend == "sb3":
            ppo.replace(self._environments())  # its wrappers start a new game only once the last one is over
        ppo.start(address(self.seed, "environments", self.task, self.update) % SEEDS)

    def _environments(self) -> Any:
        game, config = self.games[self.task], self.config
        return make_environments(game, config.environments, config.backend, threads=torch.get_num_threads())

    def _ppo(self) -> PublishedPPO:
        """A fresh PPO with a fresh optimizer around the shared network and this game's heads."""
        config = self.config
        ppo = PublishedPPO(
            GamePolicy,
            self._environments(),
            learning_rate=lambda left: config.lr * left,
            n_steps=config.rollout,
            batch_size=config.steps_per_update // config.mini_batches,
            n_epochs=config.epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip,
            clip_range_vf=config.clip,
            ent_coef=config.entropy,
            vf_coef=config.value,
            max_grad_norm=config.clip_norm,
            policy_kwargs={
                "network": self.network,
                "task": self.task,
                "low_precision": config.precision == "bfloat16",
                # Recorded or not, the same arithmetic.
                "optimizer_kwargs": {"eps": 1e-5, "capturable": self.device.type == "cuda"},
            },
            device=self.device,
        )
        ppo.cuda_graphs = self.cuda_graphs
        ppo.begin(config.updates * config.steps_per_update, self.update * config.steps_per_update)
        return ppo

    def _update(self, ppo: PublishedPPO, progress: Progress) -> None:
        began = time.monotonic()
        torch.manual_seed(address(self.seed, "actions", self.task, self.update))
        with timed(self._seconds, "rollout"):
            finished = ppo.collect()
        ppo.shuffle = generator(self.seed, "mini-batches", self.task, self.update)
        with timed(self._seconds, "update"):
            ppo.train()
        numbers = [ppo.statistics[name] for name in STATISTICS]
        if not all(map(math.isfinite, numbers)):
            raise BlipError(
                f"{self.games[self.task]}, update {self.update}: the losses are {numbers[:2]}; expected finite "
                f"numbers: try a lower ppo.lr (now {self.config.lr:g})"
            )
        mean = float(np.mean(finished)) if finished else math.nan
        lr = float(ppo.policy.optimizer.param_groups[0]["lr"])
        self._record("updates", self.task, self.update, lr, *numbers, mean, len(finished))
        self.update += 1
        speed = self.config.steps_per_update / (time.monotonic() - began)
        recent = [row["return"] for row in self.tables["updates"][-20:] if row["task"] == self.task and row["games"]]
        text = f"return {np.mean(recent):.1f}" if recent else "no game finished yet"
        progress.advance(
            self.task * self.config.updates + self.update,
            f"{self.games[self.task]}, update {self.update}/{self.config.updates}, {speed:.0f} steps/s, {text}",
        )

    def _finish_game(self, ppo: PublishedPPO, progress: Progress) -> None:
        with timed(self._seconds, "consolidate"):
            self.method.after_task(self.task, self._last_rollout(ppo))
        played = self._evaluate()
        means = [float(np.mean([game.result for game in games])) for games in played]
        for t, (mean, games) in enumerate(zip(means, played, strict=True)):
            self._record("accuracy", self.task, t, mean, math.nan, len(games))
            self._record("replays", self.task, t, games[0].seed, games[0].result, games[0].actions)
        for table, rows in self.method.measurements().items():
            self.tables[table].extend({"task_learned": self.task, **row} for row in rows)
        for phase, seconds in self._seconds.items():
            self._record("cost", self.task, phase, round(seconds, 3))
        returns = ", ".join(f"{game} {mean:.1f}" for game, mean in zip(self.games, means, strict=False))
        progress.say(f"game {self.task + 1}/{len(self.games)} ({self.games[self.task]}) learned: returns {returns}")
        ppo.release()
        self.task, self.update, self._seconds = self.task + 1, 0, {}

    def _last_rollout(self, ppo: PublishedPPO) -> Examples:
        """What the agent saw in its last rollout, and its actions, as a method is given any other images."""
        buffer = ppo.rollout_buffer
        images, actions = torch.from_numpy(buffer.observations), torch.from_numpy(buffer.actions)
        scale = torch.full((STACK, 1, 1), 1 / 255, device=self.device)
        labels = actions.flatten().long().to(self.device)
        return Examples(images.flatten(0, 1).to(self.device), labels, scale, torch.zeros_like(scale))

    def _evaluate(self) -> list[list[Played]]:
        """Play every game learned so far, the present one among them."""
        self.network.eval()
        if self.evaluation.greedy:
            return [self._play(t, "greedy", by_network(self.network, t, self.device)) for t in range(self.task + 1)]
        draws = [generator(self.seed, "evaluation actions", self.task, self.update, t) for t in range(self.task + 1)]
        agents = [by_network(self.network, t, self.device, draw) for t, draw in enumerate(draws)]
        return [self._play(t, "sampled", agent) for t, agent in enumerate(agents)]

    def _play_at_random(self) -> None:
        """The random agent's returns, by which those of others are normalised."""
        self._play(self.task, "random", at_random(self.actions[self.task], address(self.seed, "random", self.task)))

    def _play(self, task: int, agent: str, act: Act) -> list[Played]:
        settings = self.evaluation
        seed = address(self.seed, f"evaluation, {agent}", task, self.task, self.update)
        with timed(self._seconds, "evaluate"):
            games = play(
                self.games[task],
                act,
                settings.episodes,
                seed,
                max_frames=settings.max_frames,
                threads=torch.get_num_threads(),
            )
        for episode, game in enumerate(games):
            self._record("returns", self.task, self.update, task, agent, episode, game.result, len(game.actions))
        return games

    def _record(self, table: str, *values: float | int | str) -> None:
        self.tables[table].append(dict(zip(COLUMNS[table], values, strict=True)))

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint, unless the last one is too young to be worth it."""
        if time.monotonic() - self._last_saved < self.seconds_between_checkpoints:
            return
        with timed(self._seconds, "checkpoint"):
            self.checkpoint.save(
                {
                    "task": self.task,
                    "update": self.update,
                    "network": self.network.state_dict(),
                    "method": self.method.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "tables": self.tables,
                    "seconds": self._seconds,
                }
            )
        self._last_saved = time.monotonic()

    def _restore(self, saved: Row) -> None:
        self.task, self.update = saved["task"], saved["update"]
        self.network.load_state_dict(saved["network"])
        self.method.load_state_dict(saved["method"])
        self.tables, self._seconds = saved["tables"], saved["seconds"]
