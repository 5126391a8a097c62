"""Games that were played for evaluation, played again to be looked at."""

from collections.abc import Iterator

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from blip.games.atari import NOOPS
from blip.games.names import rom_id

Frame = NDArray[np.uint8]
HEIGHT, WIDTH = 210, 160


def replay(game: str, seed: int, letters: str) -> Iterator[tuple[Frame, float]]:
    """Of each step of a recorded game, the screen (210, 160, 3) in colour, and the return so far.

    The emulator has no chance of its own: with the seed of the environment and the actions it is the very same game.
    Where a game begins with an action that the agent chose, it has no FIRE, or it was recorded when the emulator
    pressed that by itself, for one frame.
    """
    environment = AtariVectorEnv(
        rom_id(game),
        1,
        num_threads=1,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,
        noop_max=NOOPS,
        use_fire_reset=letters[:1].islower(),
        img_height=HEIGHT,
        img_width=WIDTH,
        grayscale=False,
        stack_num=1,
    )
    environment.reset(seed=np.array([seed]))
    result = 0.0
    for letter in letters.lower():
        screens, rewards, *_ = environment.step(np.array([ord(letter) - ord("a")]))
        result += float(rewards[0])
        yield screens[0, 0], result
    environment.close()
