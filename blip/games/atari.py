"""Sixteen Atari games at once, for Stable-Baselines3, by ale-py's own preprocessing.

It gives what the published environments gave: frame skip 4, no sticky actions, the minimal action set, the maximum of
the last two frames, 84 × 84 grey pixels, four frames stacked, up to 30 no-ops at the start of a game, rewards -1, 0
or 1, episodes that end with a life, and what is pressed before each of them. Stable-Baselines3's chain of wrappers does
too (`tests/test_games_environments.py`), somewhat slower (`benchmarks/atari.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import ale_py
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from blip.games.actor_critic import STACK
from blip.games.names import rom_id
from blip.games.settings import MAX_FRAMES

SKIP = 4
NOOPS = 30
SEEDS = 2**31
"""ale-py takes seeds below this."""
NOOP, FIRE, THIRD = 0, 1, 2
"""Actions that are pressed before an episode: see `NativeGame`."""

Observations = NDArray[np.uint8]
Step = tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]


def emulator(game: str, *, noop_max: int = NOOPS, **settings: Any) -> AtariVectorEnv:
    """A single game of ale-py's as it is played everywhere here; nothing but its pictures may be set otherwise."""
    return AtariVectorEnv(
        rom_id(game),
        1,
        num_threads=1,
        autoreset_mode=AutoresetMode.SAME_STEP,  # the default would insert a step that no action was chosen for
        reward_clipping=False,
        noop_max=noop_max,
        use_fire_reset=False,  # it would be held for one frame, before the no-ops
        **settings,
    )


class GameStep(NamedTuple):
    """What came of one action."""

    observation: Observations
    """(4, 84, 84): the frames of the episode that goes on, black in place of those from before it."""
    reward: float
    """Clipped to its sign."""
    done: bool
    """A life was lost, or the game is over."""
    info: dict[str, Any]
    """As Stable-Baselines3 has it: of an episode that is done, `terminal_observation` and `TimeLimit.truncated`; of a
    game that is over, `episode` with its return "r", not clipped, its length "l" in actions, and its `actions`."""


class NativeGame:
    """One game of ale-py's, with what the published wrappers press by themselves.

    A lost life ends an episode, and the game goes on. Before each episode come a no-op where it does not begin with a
    new game, and then, where the game knows FIRE, that and the action after it; each is held for four frames, and their
    rewards count for the return of the game alone. ale-py's vector environment steps all of its games at once, so it
    is given a single one here: what is pressed for one game is no matter of any other.

    Args:
        game: plain name or `…NoFrameskip-v4`.
        noop_max: most no-ops, of a single frame, at the start of a game; how many is drawn by the seed.
        max_frames: frames (four for an action) after which a game is cut.
    """

    def __init__(self, game: str, *, noop_max: int = NOOPS, max_frames: int = MAX_FRAMES) -> None:
        # `episodic_life` would start a new game at each lost life.
        self.native = emulator(game, noop_max=noop_max, max_num_frames_per_episode=max_frames, life_loss_info=True)
        fires = ale_py.Action.FIRE in self.native.ale.get_action_set()
        self.opening = [FIRE, THIRD] if fires else []
        self.frame, self.age, self.result = 0, 0, 0.0
        self.actions: list[str] = []
        """The actions of this game so far: `a` is its first action, `A` the same one where nobody chose it."""
        self.over: dict[str, Any] | None = None
        """Of the game that ended since the last step, if one did."""

    def reset(self, seed: int | None = None) -> Observations:
        """Start a new game; with a seed, the one that belongs to it."""
        observations, info = self.native.reset(seed=None if seed is None else np.array([seed % SEEDS]))
        self.frame, self.result, self.actions = int(info["episode_frame_number"][0]), 0.0, []
        observation = self._pressed(observations[0], self.opening)
        self.age, self.over = 0, None
        return self._blanked(observation)

    def send(self, action: int) -> None:
        """Begin a step; `receive` must follow."""
        self.actions.append(chr(ord("a") + action))
        self._send(action)

    def receive(self) -> GameStep:
        """End a step."""
        observation, reward, done, over, info = self._receive()
        self.age += 1
        if done:
            info["terminal_observation"] = self._blanked(info.get("terminal_observation", observation))
            observation = self._pressed(observation, self.opening if over else [NOOP, *self.opening])
            self.age = 0
        if self.over:
            info["episode"], self.over = self.over, None
        return GameStep(self._blanked(observation), float(np.sign(reward)), done, info)

    def _pressed(self, observation: Observations, actions: list[int]) -> Observations:
        """The observation after `actions` that nobody chose."""
        for action in actions:
            observation, _, done, over, _ = self._press(action)
            if action != NOOP and done and not over:  # another life: SB3's FireResetEnv begins its episode as well
                observation, *_ = self._press(NOOP)
        return observation

    def _press(self, action: int) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        self.actions.append(chr(ord("A") + action))
        self._send(action)
        return self._receive()

    def _send(self, action: int) -> None:
        self.native.send(np.array([action], dtype=np.int64))

    def _receive(self) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Observation, reward, whether a life was lost or the game is over, whether the game is over, and info."""
        observations, rewards, ended, cut, native = self.native.recv()
        frame = int(native["episode_frame_number"][0])
        over = bool(cut[0] or frame != self.frame + SKIP)  # a new game has begun, not only a new life
        self.frame = frame
        self.result += float(rewards[0])
        done, info = bool(ended[0] or cut[0]), {}
        if done:
            info["TimeLimit.truncated"] = bool(cut[0] and not ended[0])
        if over:
            info["terminal_observation"] = native["final_obs"][0]  # garbage where only a life was lost
            length = sum(map(str.islower, self.actions))
            self.over = self.over or {"r": self.result, "l": length, "actions": "".join(self.actions)}
            self.result, self.actions = 0.0, []
        return observations[0], float(rewards[0]), done, over, info

    def _blanked(self, observation: Observations) -> Observations:
        """Black in place of frames from before the episode, as SB3's VecFrameStack has it; in place."""
        observation[: max(0, STACK - 1 - self.age)] = 0
        return observation

    def close(self) -> None:
        self.native.close()


Actions = Sequence[int] | NDArray[np.int64]


def begin_steps(games: Sequence[NativeGame], actions: Actions, threads: int) -> None:
    """Begin to step each game by its action, at most `threads` of them at a time; no number depends on that."""
    for game, action in zip(games[:threads], actions, strict=False):
        game.send(int(action))


def end_steps(games: Sequence[NativeGame], actions: Actions, threads: int) -> list[GameStep]:
    """End what `begin_steps` began with the same arguments."""
    steps = []
    for i, game in enumerate(games):
        steps.append(game.receive())
        if i + threads < len(games):
            games[i + threads].send(int(actions[i + threads]))
    return steps


class NativeAtari(VecEnv):
    """`count` games of ale-py's as a VecEnv of Stable-Baselines3. Observations are (count, 4, 84, 84) uint8.

    Args:
        game: plain name or `…NoFrameskip-v4`.
        count: how many are played at once.
        threads: of the emulator; no number depends on it.
        noop_max, max_frames: see `NativeGame`.
    """

    def __init__(
        self, game: str, count: int, *, threads: int = 1, noop_max: int = NOOPS, max_frames: int = MAX_FRAMES
    ) -> None:
        self.games = [NativeGame(game, noop_max=noop_max, max_frames=max_frames) for _ in range(count)]
        self.threads = threads
        self.actions = np.zeros(count, dtype=np.int64)
        native = self.games[0].native
        super().__init__(count, native.single_observation_space, native.single_action_space)

    def reset(self) -> Observations:
        """Start all games anew; with fixed seeds right after `seed`."""
        observations = np.stack([game.reset(seed) for game, seed in zip(self.games, self._seeds, strict=True)])
        self._reset_seeds()
        self._reset_options()
        return observations

    def begin(self, part: slice, actions: NDArray[np.int64]) -> None:
        """Begin a step of a part of the games; `end` must follow."""
        self.actions[part] = actions
        begin_steps(self.games[part], actions, self.threads)

    def end(self, part: slice) -> Step:
        """End a step of a part of the games."""
        steps = end_steps(self.games[part], self.actions[part], self.threads)
        observations, rewards, dones, infos = zip(*steps, strict=True)
        return np.stack(observations), np.array(rewards, dtype=np.float32), np.array(dones), list(infos)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self.begin(slice(None), actions)

    def step_wait(self) -> Step:
        return self.end(slice(None))

    def close(self) -> None:
        for game in self.games:
            game.close()

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


def action_count(game: str) -> int:
    """Actions in the minimal set of a game."""
    environment = NativeAtari(game, 1)
    space = environment.action_space
    environment.close()
    assert isinstance(space, spaces.Discrete)
    return int(space.n)
