"""Sixteen Atari games at once, for Stable-Baselines3: ale-py's own vector environment, or SB3's chain of wrappers.

Both give what the published environments gave: frame skip 4, no sticky actions, the minimal action set, the maximum of
the last two frames, 84 × 84 grey pixels, four frames stacked, up to 30 no-ops at the start of a game, rewards -1, 0
or 1, and episodes that end with a life. ale-py's is about 1.3 times as fast (`benchmarks/atari.py`).
"""

from collections.abc import Sequence
from typing import Any, Literal

import ale_py
import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from blip.errors import BlipError
from blip.games.names import SUFFIX, rom_id

STACK, SIDE = 4, 84
MAX_FRAMES = 108_000
"""Half an hour of play, where a game that does not end is cut; the usual cap (published code: 400,000)."""
SEEDS = 2**31
"""ale-py takes seeds below this."""

Observations = NDArray[np.uint8]
Step = tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]


class NativeAtari(VecEnv):
    """ale-py's vector environment as a VecEnv of Stable-Baselines3. Observations are (games, 4, 84, 84) uint8.

    Rewards are clipped to their sign. A lost life is `done` where `life_ends` says so, and the game goes on. At the
    real end of a game `info["episode"]` has the return "r", not clipped, and the length "l" in agent steps.

    Args:
        game: plain name or `…NoFrameskip-v4`.
        count: how many are played at once.
        threads: of the emulator; no number depends on it.
        life_ends: whether a lost life ends the episode; for evaluation it does not.
        noop_max: most no-ops at the start of a game, drawn by the environment's seed.
        fire: whether FIRE is pressed once after them where there is such an action.
        max_frames: frames (four for a step) after which a game is cut.
    """

    def __init__(
        self,
        game: str,
        count: int,
        *,
        threads: int = 1,
        life_ends: bool = True,
        noop_max: int = 30,
        fire: bool = True,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.native = AtariVectorEnv(
            rom_id(game),
            count,
            num_threads=threads,
            max_num_frames_per_episode=max_frames,
            # The default would insert a step that no action was chosen for; and `episodic_life` starts a new game at
            # each lost life.
            autoreset_mode=AutoresetMode.SAME_STEP,
            life_loss_info=life_ends,
            reward_clipping=False,
            noop_max=noop_max,
            use_fire_reset=fire,
        )
        self.returns, self.lengths = np.zeros(count), np.zeros(count, dtype=int)
        self.age = np.zeros(count, dtype=int)
        """Steps since the start of the episode, as the frame stack sees it."""
        self.frame = np.zeros(count, dtype=int)
        super().__init__(count, self.native.single_observation_space, self.native.single_action_space)

    def reset(self) -> Observations:
        """Start all games anew; with fixed seeds right after `seed`."""
        seeds = None if self._seeds[0] is None else np.array(self._seeds) % SEEDS
        observations, info = self.native.reset(seed=seeds)
        self.returns[:], self.lengths[:], self.age[:] = 0, 0, 0
        self.frame = info["episode_frame_number"]
        self._reset_seeds()
        self._reset_options()
        return self._blanked(observations)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self.native.send(actions.astype(np.int64))

    def step_wait(self) -> Step:
        observations, rewards, ended, cut, info = self.native.recv()
        dones = ended | cut
        over = info["episode_frame_number"] < self.frame  # a new game has begun, not only a new life
        self.frame = info["episode_frame_number"]
        self.returns += rewards
        self.lengths += 1
        self.age = np.where(dones, 0, self.age + 1)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            # `final_obs` has rows of games that are over, and garbage in those of mere lost lives.
            infos[i]["terminal_observation"] = info["final_obs"][i] if over[i] else observations[i].copy()
            infos[i]["TimeLimit.truncated"] = bool(cut[i] and not ended[i])
            if over[i]:
                infos[i]["episode"] = {"r": float(self.returns[i]), "l": int(self.lengths[i])}
                self.returns[i], self.lengths[i] = 0, 0
        return self._blanked(observations), np.sign(rewards).astype(np.float32), dones, infos

    def _blanked(self, observations: Observations) -> Observations:
        """Black in place of frames from before the episode, as SB3's VecFrameStack has it; in place."""
        for i in np.flatnonzero(self.age < STACK - 1):
            observations[i, : STACK - 1 - self.age[i]] = 0
        return observations

    def close(self) -> None:
        self.native.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        if attr_name != "render_mode":
            raise AttributeError(f"the games have no {attr_name} of their own")
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise AttributeError(f"the games have no {attr_name} of their own")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(f"the games have no {method_name} of their own")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        return [None] * self.num_envs


def wrapped_atari(game: str, count: int, *, life_ends: bool = True, noop_max: int = 30) -> VecEnv:
    """The same games through Stable-Baselines3's own wrappers, one after another in this process.

    They differ from the native ones in what happens before an episode: FIRE and the action after it are held for four
    frames each, and a lost life is followed by a no-op and those two. Raises BlipError without OpenCV.
    """
    if vars(atari_wrappers)["cv2"] is None:
        raise BlipError("Stable-Baselines3's wrappers need OpenCV: pip install opencv-python-headless")
    rom_id(game)
    gymnasium.register_envs(ale_py)

    def make() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make(game.removesuffix(SUFFIX) + SUFFIX)
        return atari_wrappers.AtariWrapper(Monitor(env), noop_max=noop_max, terminal_on_life_loss=life_ends)

    environments = DummyVecEnv([make] * count)
    return VecTransposeImage(VecFrameStack(environments, STACK))


def make_environments(
    game: str, count: int, backend: Literal["native", "sb3"] = "native", *, threads: int = 1, life_ends: bool = True
) -> VecEnv:
    """`count` environments of one game."""
    if backend == "native":
        return NativeAtari(game, count, threads=threads, life_ends=life_ends)
    return wrapped_atari(game, count, life_ends=life_ends)


def action_count(game: str) -> int:
    """Actions in the minimal set of a game."""
    environment = NativeAtari(game, 1)
    space = environment.action_space
    environment.close()
    assert isinstance(space, spaces.Discrete)
    return int(space.n)
