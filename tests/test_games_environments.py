"""Games: names, and ale-py's vector environment step by step against Stable-Baselines3's wrappers."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from opencv_stand_in import opencv as opencv
from test_data import one_line

pytest.importorskip("stable_baselines3")
pytest.importorskip("ale_py")

from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack, VecTransposeImage

from blip.errors import BlipError
from blip.games.actor_critic import STACK
from blip.games.atari import NativeAtari, NativeGame, action_count
from blip.games.names import SUFFIX, game_name, rom_id

ACTIONS = {"KungFuMaster": 14, "Boxing": 18, "Jamesbond": 18, "Krull": 18, "Riverraid": 18, "SpaceInvaders": 6}


# Names


@pytest.mark.parametrize("name", ["KungFuMaster", "KungFuMasterNoFrameskip-v4"])
def test_a_game_has_two_names(name: str) -> None:
    assert game_name(name) == "KungFuMaster"
    assert rom_id(name) == "kung_fu_master"


@pytest.mark.parametrize(
    "name",
    ["ALE/KungFuMaster-v5", "KungFuMaster-v0", "KungFuMaster-v4", "KungFuMasterDeterministic-v4"],
)
def test_environments_of_other_semantics_are_refused(name: str) -> None:
    with pytest.raises(BlipError) as error:
        game_name(name)
    assert f"game {name}: has sticky actions" in one_line(error)
    assert "write KungFuMaster or KungFuMasterNoFrameskip-v4" in one_line(error)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Chess2000", "expected a name such as"),
        ("kung_fu_master", "write KungFuMaster"),
        ("MazeCraze", "expected a name such as"),
    ],
)
def test_an_unknown_game_is_named(name: str, hint: str) -> None:
    with pytest.raises(BlipError) as error:
        game_name(name)
    assert f"game {name}: ale-py has no such game" in one_line(error)
    assert hint in one_line(error)


def test_a_missing_rom_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(BlipError) as error:
        rom_id("Boxing")
    assert "game Boxing: the ROM boxing.bin cannot be read" in one_line(error)
    (tmp_path / "boxing.bin").write_bytes(b"damaged")
    with pytest.raises(BlipError) as error:
        rom_id("Boxing")
    assert "game Boxing: the ROM boxing.bin cannot be read: The hash of" in one_line(error)


@pytest.mark.parametrize("game", ACTIONS)
def test_action_sets_are_the_published_ones(game: str) -> None:
    assert action_count(game) == ACTIONS[game]


# Against Stable-Baselines3


def compare(game: str, steps: int, seed: int = 0) -> list[float]:
    """Mean absolute difference of the pixels of each step; rewards, dones and returns are asserted to be equal."""
    chain = make_atari_env(game + SUFFIX, 1, wrapper_kwargs={"noop_max": 0})
    native, wrapped = NativeAtari(game, 1, noop_max=0), VecTransposeImage(VecFrameStack(chain, STACK))
    native.seed(seed), wrapped.seed(seed)
    ours, theirs = native.reset(), wrapped.reset()
    random = np.random.default_rng(seed)
    differences, lives = [], 0
    for step in range(steps):
        assert (ours[0].any((1, 2)) == theirs[0].any((1, 2))).all(), "black frames after the start of an episode"
        differences.append(np.abs(ours[:, -1].astype(float) - theirs[:, -1]).mean())
        action = random.integers(0, ACTIONS[game], 1)
        ours, reward, done, info = native.step(action)
        theirs, expected_reward, expected_done, expected_info = wrapped.step(action)
        assert (reward == expected_reward).all(), step
        assert (done == expected_done).all(), step
        over = "episode" in expected_info[0]
        assert ("episode" in info[0]) == over
        if over:
            assert info[0]["episode"]["r"] == expected_info[0]["episode"]["r"]
        elif done:  # where a game is over, SB3's wrappers show what the maximum of frames happened to hold
            lives += 1
            last, expected_last = info[0]["terminal_observation"], expected_info[0]["terminal_observation"]
            assert (last.any((1, 2)) == expected_last.any((1, 2))).all()
            assert np.abs(last[-1].astype(float) - expected_last[-1]).mean() < 3
    native.close(), wrapped.close()
    assert lives or game == "Boxing" or steps < 1000, "lives were lost on the way"
    return differences


@pytest.mark.parametrize("game", ACTIONS)
@pytest.mark.usefixtures("opencv")
def test_native_games_are_those_of_the_wrappers(game: str) -> None:
    differences = compare(game, 300)
    assert (np.mean(differences), max(differences)) < (0.2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("game", ACTIONS)
@pytest.mark.usefixtures("opencv")
def test_native_games_are_those_of_the_wrappers_for_long(game: str) -> None:
    assert np.mean(compare(game, 1500, seed=1)) < 0.2


def test_many_games_at_once_are_the_same_games() -> None:
    """Each with its own seed, actions, lives and returns: as if it were played alone."""
    many, alone = NativeAtari("SpaceInvaders", 3, threads=2), [NativeAtari("SpaceInvaders", 1) for _ in range(3)]
    many.seed(7)
    observations = many.reset()
    for i, one in enumerate(alone):
        one.seed(7 + i)
        assert (one.reset() == observations[i]).all()
    random = np.random.default_rng(0)
    ended = 0
    for _ in range(600):
        actions = random.integers(0, 6, 3)
        observations, rewards, dones, infos = many.step(actions)
        assert set(np.unique(rewards)) <= {-1, 0, 1}
        for i, one in enumerate(alone):
            obs, reward, done, info = one.step(actions[i : i + 1])
            assert (obs[0] == observations[i]).all()
            assert (reward[0], done[0]) == (rewards[i], dones[i])
            assert info[0].get("episode") == infos[i].get("episode")
            if done:
                assert (info[0]["terminal_observation"] == infos[i]["terminal_observation"]).all()
                assert not observations[i, :3].any()
            ended += "episode" in info[0]
    assert ended, "a game ended on the way"


def test_a_long_game_is_cut() -> None:
    games = NativeAtari("SpaceInvaders", 2, max_frames=2000)
    games.seed(0)
    games.reset()
    random = np.random.default_rng(0)
    cut = 0
    for _ in range(1100):
        _, _, dones, infos = games.step(random.integers(0, 6, 2))
        for done, info in zip(dones, infos, strict=True):
            assert done or "episode" not in info
            if "episode" in info:
                frames = 4 * len(info["episode"]["actions"])
                assert frames <= 2000
                assert info["TimeLimit.truncated"] == (frames == 2000)
                cut += info["TimeLimit.truncated"]
    assert cut


# What is pressed before an episode


class Script:
    """A game of which only the lives are told: step k loses one, ends the game (`over`), or does nothing (`goes on`).

    It is an environment of Gymnasium's, and has what `NativeGame` calls of ale-py's vector environment.
    """

    def __init__(self, events: list[str], fires: bool) -> None:
        self.events, self.fires = events, fires
        self.pressed: list[Any] = []
        self.left, self.frame, self.ended = 0, 0, False

    def start(self) -> None:
        self.pressed.append("new game")
        self.left, self.frame = 1000, 0

    def act(self, action: int) -> None:
        event = self.events[len(self.pressed) % len(self.events)]
        self.pressed.append(int(action))
        self.frame += 4
        self.lost, self.ended = event == "a life", event == "over"
        self.left -= self.lost

    def environment(self) -> gymnasium.Env[Any, Any]:
        script = self

        class Scripted(gymnasium.Env[Any, Any]):
            ale = SimpleNamespace(lives=lambda: script.left)

            def get_action_meanings(self) -> list[str]:
                return ["NOOP", "FIRE", "UP"]

            def reset(self, **_: Any) -> Any:
                script.start()
                return np.zeros(1), {}

            def step(self, action: int) -> Any:
                script.act(action)
                return np.zeros(1), 0.0, script.ended, False, {}

        env = atari_wrappers.EpisodicLifeEnv(Scripted())
        return atari_wrappers.FireResetEnv(env) if self.fires else env

    def send(self, actions: Any) -> None:
        self.act(actions[0])

    def recv(self) -> Any:
        done = self.lost or self.ended
        if self.ended:
            self.start()
        screens, zero = np.zeros((1, 4, 84, 84), np.uint8), np.zeros(1, bool)
        info = {"episode_frame_number": np.array([self.frame]), "final_obs": screens}
        return screens, np.zeros(1), zero | done, zero, info

    def reset(self, seed: Any = None) -> Any:
        self.start()
        return np.zeros((1, 4, 84, 84), np.uint8), {"episode_frame_number": np.zeros(1, int)}


@pytest.mark.parametrize("game", ["SpaceInvaders", "KungFuMaster"])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_pressed_is_what_the_wrappers_press_whatever_happens_meanwhile(game: str, seed: int) -> None:
    """Lives and games are lost everywhere, while NOOP, FIRE and UP are pressed too."""
    random = np.random.default_rng(seed)
    events = random.choice(["goes on", "a life", "over"], 997, p=[0.6, 0.25, 0.15]).tolist()
    fires = game == "SpaceInvaders"
    ours, theirs = Script(events, fires), Script(events, fires)
    native, wrapped = NativeGame(game), theirs.environment()
    native.close()
    native.native = ours
    native.reset(), wrapped.reset()
    for step in range(300):
        assert ours.pressed == theirs.pressed, step
        action = int(random.integers(0, 3))
        native.send(action)
        done = native.receive().done
        _, _, expected, *_ = wrapped.step(action)
        assert done == expected
        if expected:
            wrapped.reset()


@pytest.mark.parametrize(("game", "opening"), [("SpaceInvaders", "BC"), ("KungFuMaster", "")])
def test_the_letters_of_a_game_tell_what_was_chosen_and_what_was_pressed(game: str, opening: str) -> None:
    random = np.random.default_rng(0)
    one, chosen, observed = NativeGame(game), [], []
    one.reset(3)
    while True:
        action = int(random.integers(0, ACTIONS[game]))
        chosen.append("abcdefghijklmnopqr"[action])
        one.send(action)
        step = one.receive()
        observed.append(step)
        if "episode" in step.info:
            break
    one.close()
    actions, length = step.info["episode"]["actions"], step.info["episode"]["l"]
    lives = sum(s.done for s in observed) - 1
    assert lives >= 2
    assert actions.startswith(opening)
    assert actions.count(f"A{opening}") == lives == actions.count("A")
    assert [c for c in actions if c.islower()] == chosen
    assert length == len(chosen)
    for step in observed:
        assert step.done == (not step.observation[:3].any()), "the frames of the life before are black"
