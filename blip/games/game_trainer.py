"""Games learned one after another by PPO with any method attached: evaluation, restarts."""

import math
import time
from typing import ClassVar

import numpy as np
import torch

from blip.data import Examples
from blip.errors import DivergedError
from blip.games.actor_critic import STACK, ActorCriticNetwork
from blip.games.atari import SEEDS, NativeAtari
from blip.games.evaluation import Act, Played, at_random, by_network, play
from blip.games.measurements import MEAN_RETURNS, RANDOM_RETURNS, REPLAYS, RETURNS, UPDATES
from blip.games.policy import GamePolicy
from blip.games.ppo import STATISTICS, PublishedPPO
from blip.games.settings import EvaluationConfig, PPOConfig
from blip.progress import Progress
from blip.record import Row
from blip.seeding import address, generator
from blip.training.loop import Setup, Trainer


class GameTrainer(Trainer):
    """One run on games.

    Every `restart_updates` updates the environments are made anew, whether or not a checkpoint is written there, since
    the emulator's state cannot be saved.
    """

    unit: ClassVar[str] = "update"
    left: ClassVar[str] = "about"

    network: ActorCriticNetwork

    def __init__(self, config: PPOConfig, evaluation: EvaluationConfig, setup: Setup) -> None:
        self.config, self.evaluation = config, evaluation
        super().__init__(setup, config.updates)

    def _learn(self, progress: Progress, saved: Row | None) -> None:
        self._ppo = ppo = self._fresh_ppo()
        optimizer = ppo.policy.optimizer
        if saved:
            # How steps are made is this device's business, and their size the schedule's: only the moments are taken.
            state = optimizer.state_dict()
            with self.checkpoint.restoring():
                optimizer.load_state_dict({**saved["optimizer"], "param_groups": state["param_groups"]})
        else:
            self._play_at_random()
        resumed = saved is not None
        while self.done < self.config.updates:
            if not resumed and self.done % self.evaluation.every_updates == 0:
                self._evaluate()
            if self.done % self.config.restart_updates == 0:
                if not resumed:
                    self._save({"optimizer": optimizer.state_dict()})
                # New games, which depend on nothing but the place in the run.
                ppo.start(address(self.seed, "environments", self.task, self.done) % SEEDS)
            resumed = False
            self._update(ppo, progress)

    def _fresh_ppo(self) -> PublishedPPO:
        """A fresh PPO with a fresh optimizer around the shared network and this game's heads."""
        config = self.config
        ppo = PublishedPPO(
            GamePolicy,
            NativeAtari(self.names[self.task], config.environments, threads=torch.get_num_threads()),
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
            stats_window_size=config.steps_per_update,  # every game that ends in a rollout
            policy_kwargs={
                "network": self.network,
                "task": self.task,
                "low_precision": config.precision == "bfloat16",
                # Recorded or not, the same arithmetic.
                "optimizer_kwargs": {"eps": 1e-5, "fused": True, "capturable": self.device.type == "cuda"},
            },
            device=self.device,
        )
        ppo.method, ppo.cuda_graphs = self.method, self.cuda_graphs
        ppo.halves = self.device.type == "cuda"
        ppo.begin(config.updates * config.steps_per_update, self.done * config.steps_per_update)
        return ppo

    def _update(self, ppo: PublishedPPO, progress: Progress) -> None:
        began = time.monotonic()
        torch.manual_seed(address(self.seed, "actions", self.task, self.done))
        with self._timed("rollout"):
            finished = ppo.collect()
        ppo.shuffle = generator(self.seed, "mini-batches", self.task, self.done)
        with self._timed("update"):
            ppo.train()
        numbers = [ppo.statistics[name] for name in STATISTICS]
        if not all(map(math.isfinite, numbers)) or not ppo.is_finite():  # before its last step, and after
            raise DivergedError(
                f"{self.names[self.task]}, update {self.done}: the losses are {numbers[:2]}; expected finite "
                f"numbers, of the network too: try a lower ppo.lr (now {self.config.lr:g})"
            )
        mean = float(np.mean(finished)) if finished else math.nan
        lr = float(ppo.policy.optimizer.param_groups[0]["lr"])
        self._record(UPDATES, self.task, self.done, lr, *numbers, mean, len(finished))
        self.done += 1
        speed = self.config.steps_per_update / (time.monotonic() - began)
        recent = [row["return"] for row in self.tables["updates"][-20:] if row["task"] == self.task and row["games"]]
        text = f"return {np.mean(recent):.1f}" if recent else "no game finished yet"
        progress.advance(
            self.task * self.units + self.done,
            f"{self.names[self.task]}, update {self.done}/{self.config.updates}, {speed:.0f} steps/s, {text}",
        )

    def _trained(self) -> int:
        return self.done * self.config.steps_per_update

    def _test(self) -> str:
        self._ppo.release()
        played = self._evaluate()
        means = [float(np.mean([game.result for game in games])) for games in played]
        for t, (mean, games) in enumerate(zip(means, played, strict=True)):
            self._record(MEAN_RETURNS, self.task, t, mean, len(games))
            self._record(REPLAYS, self.task, t, games[0].seed, games[0].result, games[0].actions)
        return "returns " + ", ".join(f"{game} {mean:.1f}" for game, mean in zip(self.names, means, strict=False))

    def _examples(self) -> Examples:
        """What the agent saw in its last rollout, and its actions, as a method is given any other images."""
        buffer = self._ppo.rollout_buffer
        images, actions = torch.from_numpy(buffer.observations), torch.from_numpy(buffer.actions)
        scale = torch.full((STACK, 1, 1), 1 / 255, device=self.device)
        labels = actions.flatten().long().to(self.device)
        return Examples(images.flatten(0, 1).to(self.device), labels, scale, torch.zeros_like(scale))

    def _evaluate(self) -> list[list[Played]]:
        """Play every game learned so far, the present one among them."""
        self.network.eval()
        return [self._play_as_learned(t) for t in range(self.task + 1)]

    def _play_as_learned(self, t: int) -> list[Played]:
        greedy = self.evaluation.greedy
        draw = None if greedy else generator(self.seed, "evaluation actions", self.task, self.done, t)
        with self.method.as_seen_by(t):
            act = by_network(self.network, t, self.device, draw, graphs=self.cuda_graphs)
            return self._play(t, "greedy" if greedy else "sampled", act)

    def _play_at_random(self) -> None:
        """The random agent's returns, by which those of others are normalised."""
        act = at_random(self.network.outputs[self.task], address(self.seed, "random", self.task))
        games = self._play(self.task, "random", act)
        self._record(RANDOM_RETURNS, self.task, float(np.mean([game.result for game in games])), len(games))

    def _play(self, task: int, agent: str, act: Act) -> list[Played]:
        settings = self.evaluation
        seed = address(self.seed, f"evaluation, {agent}", task, self.task, self.done)
        with self._timed("evaluate"):
            games = play(
                self.names[task],
                act,
                settings.episodes,
                seed,
                max_frames=settings.max_frames,
                threads=torch.get_num_threads(),
            )
        for episode, game in enumerate(games):
            place = (self.task, self.done, sum(self.trained) + self._trained(), task)
            self._record(RETURNS, *place, agent, episode, game.result, game.length)
        return games
