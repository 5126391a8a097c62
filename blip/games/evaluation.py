"""Returns of whole games."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from blip.games.atari import SEEDS, NativeGame, Observations, step_games
from blip.networks import MultiHeadNetwork

Act = Callable[[Observations], NDArray[np.int64]]


class Played(NamedTuple):
    """A whole game: what it takes to play it again, and its return, not clipped."""

    seed: int
    actions: str
    """A letter for each step: `a` is the game's first action, `A` the same one, pressed before an episode."""
    length: int
    """Steps whose action the agent chose."""
    result: float


def play(game: str, act: Act, count: int, seed: int, *, max_frames: int, threads: int = 1) -> list[Played]:
    """Play `count` whole games, each from a seed of its own.

    All lives, as the agent knows them from training: after each one the older frames are black, and the same is
    pressed. No second game for those that end early, which would favour short ones. `act` is given the observations
    (n, 4, 84, 84) of the games that are still played.
    """
    games = [NativeGame(game, max_frames=max_frames) for _ in range(count)]
    seeds = [(seed + i) % SEEDS for i in range(count)]
    observations = [one.reset(s) for one, s in zip(games, seeds, strict=True)]
    played: dict[int, Played] = {}
    while len(played) < count:
        playing = [i for i in range(count) if i not in played]
        actions = act(np.stack([observations[i] for i in playing]))
        for i, step in zip(playing, step_games([games[i] for i in playing], actions, threads), strict=True):
            observations[i] = step.observation
            if ended := step.info.get("episode"):
                played[i] = Played(seeds[i], ended["actions"], ended["l"], ended["r"])
    for one in games:
        one.close()
    return [played[i] for i in range(count)]


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
