"""Returns of whole games."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from blip.rl.environments import SEEDS, NativeAtari, Observations
from blip.rl.networks import ActorCriticNetwork

Act = Callable[[Observations], NDArray[np.int64]]


def play(game: str, act: Act, count: int, seed: int, *, max_frames: int, threads: int = 1) -> list[tuple[float, int]]:
    """Return (not clipped) and length in steps of `count` whole games, one in each environment.

    All lives, and no second game for those that end early, which would favour short ones. `act` is given the
    observations (n, 4, 84, 84) of the games that are still played.
    """
    environments = NativeAtari(game, count, threads=threads, life_ends=False, max_frames=max_frames)
    environments.seed(seed % SEEDS)
    observations = environments.reset()
    results: dict[int, tuple[float, int]] = {}
    actions = np.zeros(count, dtype=np.int64)
    while len(results) < count:
        playing = [i for i in range(count) if i not in results]
        actions[playing] = act(observations[playing])
        observations, _, _, infos = environments.step(actions)  # type: ignore[assignment]
        for i in playing:
            if "episode" in infos[i]:
                results[i] = (infos[i]["episode"]["r"], infos[i]["episode"]["l"])
    environments.close()
    return [results[i] for i in range(count)]


def greedy(network: ActorCriticNetwork, task: int, device: torch.device) -> Act:
    """The likeliest action in game `task`."""

    @torch.no_grad()
    def act(observations: Observations) -> NDArray[np.int64]:
        x = torch.from_numpy(observations).to(device).float().div_(255)
        actions: NDArray[np.int64] = network(x, task).argmax(1).cpu().numpy()
        return actions

    return act


def at_random(actions: int, seed: int) -> Act:
    """Any of `actions` actions, each as likely."""
    random = np.random.default_rng(seed)
    return lambda observations: random.integers(0, actions, len(observations))
