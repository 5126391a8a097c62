"""Returns of whole games."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from blip.games.atari import SEEDS, NativeAtari, Observations
from blip.networks import MultiHeadNetwork

Act = Callable[[Observations], NDArray[np.int64]]


class Played(NamedTuple):
    """A whole game: what it takes to play it again, and its return, not clipped."""

    seed: int
    actions: str
    """A letter for each step: `a` is the game's first action."""
    result: float


def play(game: str, act: Act, count: int, seed: int, *, max_frames: int, threads: int = 1) -> list[Played]:
    """Play `count` whole games, one in each environment.

    All lives, and no second game for those that end early, which would favour short ones. `act` is given the
    observations (n, 4, 84, 84) of the games that are still played.
    """
    environments = NativeAtari(game, count, threads=threads, life_ends=False, max_frames=max_frames)
    environments.seed(seed % SEEDS)
    observations = environments.reset()
    results: dict[int, float] = {}
    actions = np.zeros(count, dtype=np.int64)
    lengths = np.zeros(count, dtype=int)
    taken: list[str] = []
    while len(results) < count:
        playing = [i for i in range(count) if i not in results]
        actions[playing] = act(observations[playing])
        taken.append(letters(actions))
        observations, _, _, infos = environments.step(actions)  # type: ignore[assignment]
        for i in playing:
            if "episode" in infos[i]:
                results[i], lengths[i] = infos[i]["episode"]["r"], infos[i]["episode"]["l"]
    environments.close()
    return [
        Played((seed + i) % SEEDS, "".join(step[i] for step in taken[: lengths[i]]), results[i]) for i in range(count)
    ]


def letters(actions: NDArray[np.int64]) -> str:
    """Actions (n,) below 26 as n letters."""
    return (actions + ord("a")).astype(np.uint8).tobytes().decode()


def by_network(network: MultiHeadNetwork, task: int, device: torch.device, draw: torch.Generator | None = None) -> Act:
    """The likeliest action in game `task`, or one drawn from the policy by `draw` (a generator of the CPU)."""

    @torch.no_grad()
    def act(observations: Observations) -> NDArray[np.int64]:
        x = torch.from_numpy(observations).to(device).float().div_(255)
        logits = network(x, task).cpu()
        if draw is None:
            actions: NDArray[np.int64] = logits.argmax(1).numpy()
        else:
            actions = torch.multinomial(logits.softmax(1), 1, generator=draw).squeeze(1).numpy()
        return actions

    return act


def at_random(actions: int, seed: int) -> Act:
    """Any of `actions` actions, each as likely."""
    random = np.random.default_rng(seed)
    return lambda observations: random.integers(0, actions, len(observations))
