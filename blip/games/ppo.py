"""Stable-Baselines3's PPO with the published loss and schedule, and updates that never wait for the device.

What differs from Stable-Baselines3, all of it as in the published code:

* the value loss is ½ · max of the clipped and the unclipped squared error;
* advantages are normalised over the rollout instead of each mini-batch;
* update j of N has the learning rate lr · (1 - j/N), so the last one is not 0.

A continual-learning method may be given, with whose penalties it learns then.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from blip.devices import upload
from blip.games.acting import Acting, Games, images_at
from blip.methods import Method
from blip.training.graphs import GraphedStep

STATISTICS = ("policy_loss", "value_loss", "entropy", "kl", "clipped")
"""Means over an update: losses as the module says, entropy in nats, approximate KL divergence from the policy that
acted, share of ratios that were clipped."""


class PublishedPPO(PPO):
    """PPO for discrete actions. `shuffle` draws the mini-batches; `statistics` are those of the last update."""

    shuffle: torch.Generator | None = None
    statistics: ClassVar[dict[str, float]] = {}
    method: Method | None = None
    """With whose penalties it learns, and which is told of every step."""
    cuda_graphs: bool = False
    """Whether mini-batches are trained on by a recorded CUDA graph; the optimizer must be capturable then."""
    halves: bool = False
    """Whether one half of the games is played while the network acts in the other, as on a GPU; the environments can be
    stepped in part then (`Games`), and actions are drawn from other random numbers."""
    _step: Callable[[Tensor], None] | None = None
    _acting: Acting | None = None
    _rollout: Sequence[Tensor] = ()

    def begin(self, total_steps: int, steps: int = 0) -> None:
        """Prepare to learn for `total_steps`, of which `steps` were learned before; `start` must follow."""
        self.set_logger(Logger(folder=None, output_formats=[]))  # first, or SB3 makes a folder for one of its own
        self._setup_learn(total_steps)
        self.num_timesteps = steps

    def release(self) -> None:
        """Close the environments, and let go of the recording and the rollout on the device.

        Objects of Stable-Baselines3 hold each other, so they live until Python looks for such circles.
        """
        assert self.env is not None
        self.env.close()
        if self._acting:
            self._acting.release()
        self._step, self._acting, self._rollout = None, None, ()

    def start(self, seed: int) -> None:
        """Start new games in all environments."""
        assert self.env is not None
        self.env.seed(seed)
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)

    def collect(self) -> list[float]:
        """Fill the rollout buffer; returns, not clipped, of the games that ended meanwhile."""
        assert self.env is not None
        assert self.ep_info_buffer is not None
        self.ep_info_buffer.clear()
        if self.halves:
            self._collect_in_halves(cast("Games", self.env))
        else:
            self.collect_rollouts(self.env, self._init_callback(None), self.rollout_buffer, self.n_steps)
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        return [episode["r"] for episode in self.ep_info_buffer]

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        begun = num_timesteps - self.n_steps * self.n_envs  # the rollout just collected does not count yet
        self._current_progress_remaining = 1.0 - begun / total_timesteps

    def _collect_in_halves(self, games: Games) -> None:
        """What SB3's `collect_rollouts` does, where what was seen and done stays on the device."""
        buffer, shape = self.rollout_buffer, (self.n_steps, self.n_envs)
        self.policy.set_training_mode(False)
        if self._acting is None:
            self._make_rollout()
            self._acting = Acting(self.policy, self._rollout[:4], *shape, graphs=self.cuda_graphs)
        played = self._acting.play(games, cast("Any", self._last_obs))
        self.num_timesteps += self.n_steps * self.n_envs
        buffer.observations = self._acting.seen.numpy()
        actions, buffer.log_probs, buffer.values = (x.view(shape).cpu().numpy() for x in self._rollout[1:4])
        buffer.actions = actions[..., None]
        buffer.rewards = played.rewards
        for t, (infos, dones) in enumerate(zip(played.infos, played.dones, strict=True)):
            self._update_info_buffer(infos, dones)
            for i in np.flatnonzero(dones):
                if infos[i].get("TimeLimit.truncated"):  # the game would have gone on
                    buffer.rewards[t, i] += self.gamma * float(self._values(infos[i]["terminal_observation"][None]))
        buffer.episode_starts = np.concatenate([[self._last_episode_starts], played.dones[:-1]]).astype(np.float32)
        self._last_obs, self._last_episode_starts = played.observations, played.dones[-1]
        buffer.compute_returns_and_advantage(self._values(played.observations), played.dones[-1])

    @torch.no_grad()
    def _values(self, observations: Any) -> Tensor:
        return self.policy.predict_values(upload(torch.from_numpy(observations), self.device))

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether actions and values of what was seen last are finite."""
        seen = upload(torch.from_numpy(cast("Any", self._last_obs)), self.device)
        hidden = self.policy.features_extractor(seen.float().div_(255))
        return all(bool(head(hidden).isfinite().all()) for head in (self.policy.action_net, self.policy.value_net))

    def train(self) -> None:
        """Update the policy by the rollout in the buffer."""
        self.policy.set_training_mode(True)
        self._set_learning_rate()
        self._load_rollout()
        n = len(self._rollout[0])
        orders = torch.stack([torch.randperm(n, generator=self.shuffle) for _ in range(self.n_epochs)])
        batches = [b for order in upload(orders, self.device) for b in order.split(self.batch_size)]
        if self._step is None:
            step = self._train_step
            self._step = GraphedStep(step, self.batch_size, self.device) if self.cuda_graphs else step
        self._sums.zero_()
        for index in batches:
            self._step(index)
        self._n_updates += self.n_epochs
        means = self._sums / len(batches)  # the device is waited for here, once
        self.statistics = dict(zip(STATISTICS, means.tolist(), strict=True))  # type: ignore[misc]

    def _set_learning_rate(self) -> None:
        lr = self.lr_schedule(self._current_progress_remaining)
        for group in self.policy.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)  # in place, for recorded steps read it
            else:
                group["lr"] = lr

    def _make_rollout(self) -> None:
        """Memory on the device that recorded steps read: observations (n, …) uint8, actions, log-probabilities, values,
        advantages and returns (n,)."""
        n = self.n_steps * self.n_envs
        shape = self.rollout_buffer.obs_shape
        kinds = [((n, *shape), torch.uint8), ((n,), torch.int64), *[((n,), torch.float32)] * 4]
        self._rollout = [torch.empty(size, dtype=dtype, device=self.device) for size, dtype in kinds]
        self._sums = torch.zeros(len(STATISTICS), device=self.device)

    def _load_rollout(self) -> None:
        """Bring the buffer to the device, but what acting left there."""
        buffer = self.rollout_buffer
        if not self._rollout:
            self._make_rollout()
        vectors = (buffer.log_probs, buffer.values, buffer.advantages, buffer.returns)
        arrays = (buffer.observations, buffer.actions.squeeze(-1).astype(np.int64), *vectors)
        first = 4 if self.halves else 0
        for ours, array in zip(self._rollout[first:], arrays[first:], strict=True):
            ours.copy_(upload(torch.from_numpy(array).flatten(0, 1), self.device))
        advantage = self._rollout[4]
        advantage.sub_(advantage.mean()).div_(advantage.std() + 1e-5)

    def _train_step(self, index: Tensor) -> None:
        """One mini-batch."""
        observations, *vectors = self._rollout
        images = images_at(observations, index)
        loss, statistics = self._loss(images, *(v.index_select(0, index) for v in vectors))
        self.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.method:
            self.method.before_step()
            if quadratic := self.method.quadratic_penalty():
                quadratic.add_gradients()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        if self.method:
            self.method.after_step()
        self._sums += statistics

    def _loss(
        self,
        observations: Tensor,
        actions: Tensor,
        old_log_prob: Tensor,
        old_value: Tensor,
        advantage: Tensor,
        target: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The loss of a mini-batch, and STATISTICS."""
        clip = float(self.clip_range(1.0))  # type: ignore[operator]
        inputs = observations.float().div_(255)
        hidden = self.policy.features_extractor(inputs)
        log_probs = F.log_softmax(self.policy.action_net(hidden), dim=1)
        log_prob = log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)
        entropy = -(log_probs.exp() * log_probs).sum(1).mean()
        ratio = (log_prob - old_log_prob).exp()
        policy_loss = -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        value: Tensor = self.policy.value_net(hidden).squeeze(1)
        near = old_value + (value - old_value).clamp(-clip, clip)
        value_loss = 0.5 * torch.max((value - target) ** 2, (near - target) ** 2).mean()
        loss = policy_loss - self.ent_coef * entropy + self.vf_coef * value_loss
        penalty = self.method.penalty(inputs, hidden) if self.method else None
        loss = loss if penalty is None else loss + penalty
        with torch.no_grad():
            kl = ((ratio - 1) - ratio.log()).mean()
            clipped = ((ratio - 1).abs() > clip).float().mean()
            statistics = torch.stack([policy_loss, value_loss, entropy, kl, clipped])
        return loss, statistics
