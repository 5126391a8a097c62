"""Returns of whole games."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blip.devices import upload
from blip.games.atari import SEEDS, NativeGame, Observations, begin_steps, end_steps
from blip.networks import MultiHeadNetwork
from blip.training.graphs import GraphedStep

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
        stepped = [games[i] for i in playing]
        begin_steps(stepped, actions, threads)
        for i, step in zip(playing, end_steps(stepped, actions, threads), strict=True):
            observations[i] = step.observation
            if ended := step.info.get("episode"):
                played[i] = Played(seeds[i], ended["actions"], ended["l"], ended["r"])
    for one in games:
        one.close()
    return [played[i] for i in range(count)]


def by_network(
    network: MultiHeadNetwork,
    task: int,
    device: torch.device,
    draw: torch.Generator | None = None,
    *,
    graphs: bool = False,
) -> Act:
    """The likeliest action in game `task`, or one drawn from the policy by `draw` (a generator of the CPU).

    On a GPU the network is given as many games in every call as in the first, and `graphs` says whether that is
    recorded; no number depends on it.
    """

    @torch.no_grad()
    def logits_of(images: Tensor) -> Tensor:
        logits: Tensor = network(images.float().div_(255), task)
        return logits

    constant = _ConstantSize(logits_of, device, graphs=graphs) if graphs or device.type == "cuda" else None

    def act(observations: Observations) -> NDArray[np.int64]:
        images = torch.from_numpy(observations)
        logits = (constant(images) if constant else logits_of(upload(images, device))).cpu()
        if draw is None:
            actions: NDArray[np.int64] = logits.argmax(1).numpy()
        else:
            actions = torch.multinomial(logits.softmax(1), 1, generator=draw).squeeze(1).numpy()
        return actions

    return act


class _ConstantSize:
    """`function` of images, always of as many as there were at first, which can be recorded: what is missing later is
    computed in vain.

    Nothing here holds itself in a circle: a recording, of which every evaluation makes one, must give its memory on the
    device back at once, and not when Python next looks for circles.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], device: torch.device, *, graphs: bool) -> None:
        self.function, self.device, self.graphs = function, device, graphs
        self.step: Callable[[Tensor], None] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self.step is None:
            self.images = upload(images, self.device).clone()
            self.results = self.function(self.images)
            self.every = torch.arange(len(images), device=self.device)
            step = partial(_compute, self.function, self.images, self.results)
            self.step = GraphedStep(step, len(images), self.device) if self.graphs else step
        self.images[: len(images)].copy_(upload(images, self.device))
        self.step(self.every)
        return self.results[: len(images)]


def _compute(function: Callable[[Tensor], Tensor], images: Tensor, results: Tensor, _: Tensor) -> None:
    results.copy_(function(images))


def at_random(actions: int, seed: int) -> Act:
    """Any of `actions` actions, each as likely."""
    random = np.random.default_rng(seed)
    return lambda observations: random.integers(0, actions, len(observations))
