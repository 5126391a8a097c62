"""Games that were played for evaluation, played again to be looked at."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blip.errors import BlipError
from blip.games.atari import SEEDS, action_count, emulator

Frame = NDArray[np.uint8]
HEIGHT, WIDTH = 210, 160
NEVER_CUT = 2**31 - 1
"""Frames: where a game was cut, its recorded actions end."""


def replay(game: str, seed: int, actions: str) -> Iterator[tuple[Frame, float]]:
    """Of each step of a recorded game, the screen (210, 160, 3) in colour, and the return so far.

    The emulator has no chance of its own: with the seed of the environment and the actions it is the very same game.
    """
    if not 0 <= seed < SEEDS:
        raise BlipError(f"{game}: environment_seed: expected 0 to {SEEDS - 1}, found {seed}")
    last = chr(ord("a") + action_count(game) - 1)
    if not actions or not all("a" <= letter <= last for letter in actions.lower()):
        raise BlipError(f"{game}: actions: expected letters from a to {last}")
    pictures = {"img_height": HEIGHT, "img_width": WIDTH, "grayscale": False, "stack_num": 1}
    environment = emulator(game, max_num_frames_per_episode=NEVER_CUT, **pictures)
    environment.reset(seed=np.array([seed]))
    result = 0.0
    for letter in actions.lower():
        screens, rewards, *_ = environment.step(np.array([ord(letter) - ord("a")]))
        result += float(rewards[0])
        yield screens[0, 0], result
    environment.close()
