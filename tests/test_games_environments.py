"""Games: names, and ale-py's vector environment step by step against Stable-Baselines3's wrappers."""

from typing import Any

import numpy as np
import pytest
from opencv_stand_in import opencv as opencv
from test_data import one_line

pytest.importorskip("stable_baselines3")
pytest.importorskip("ale_py")

from stable_baselines3.common import atari_wrappers

from blip.errors import BlipError
from blip.games.atari import NativeAtari, action_count, wrapped_atari
from blip.games.names import game_name, rom_id

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
    ("name", "hint"), [("Chess2000", "expected a name such as"), ("kung_fu_master", "write KungFuMaster")]
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


def hidden_steps(native: NativeAtari, game: str, *, life: bool = False) -> None:
    """What SB3's wrappers do by themselves: a no-op after a lost life; FIRE, where there is such an action, and UP."""
    for action in [0] * life + [1, 2] * (game != "KungFuMaster"):
        _, _, dones, _ = native.step(np.array([action]))
        assert not dones.any()
    native.age[:] = 0


def compare(game: str, steps: int, seed: int = 0) -> list[float]:
    """Mean absolute difference of the pixels of each step; rewards, dones and returns are asserted to be equal."""
    native = NativeAtari(game, 1, noop_max=0, fire=False)
    wrapped = wrapped_atari(game, 1, noop_max=0)
    native.seed(seed), wrapped.seed(seed)
    native.reset(), wrapped.reset()
    hidden_steps(native, game)
    random = np.random.default_rng(seed)
    differences, lives = [], 0
    for step in range(steps):
        action = random.integers(0, ACTIONS[game], 1)
        ours, reward, done, info = native.step(action)
        theirs, expected_reward, expected_done, expected_info = wrapped.step(action)
        assert (reward == expected_reward).all(), step
        assert (done == expected_done).all(), step
        over = "episode" in expected_info[0]
        assert ("episode" in info[0]) == over
        if over:
            assert info[0]["episode"]["r"] == expected_info[0]["episode"]["r"]
        if done:
            lives += 1
            if not over:  # where a game is over, SB3's wrappers show what the maximum of frames happened to hold
                last, expected_last = info[0]["terminal_observation"], expected_info[0]["terminal_observation"]
                assert np.abs(last[-1].astype(float) - expected_last[-1]).mean() < 3
            hidden_steps(native, game, life=not over)
        else:
            assert (ours[0].any((1, 2)) == theirs[0].any((1, 2))).all(), "black frames after the start of an episode"
            differences.append(np.abs(ours[:, -1].astype(float) - theirs[:, -1]).mean())
    native.close(), wrapped.close()
    assert lives or game == "Boxing" or steps < 1000, "episodes ended on the way"
    return differences


@pytest.mark.parametrize("game", ACTIONS)
@pytest.mark.usefixtures("opencv")
def test_native_games_are_those_of_the_wrappers(game: str) -> None:
    assert np.mean(compare(game, 300)) < 0.2


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


def test_for_evaluation_lives_do_not_end_an_episode_and_a_long_game_is_cut() -> None:
    games = NativeAtari("SpaceInvaders", 2, life_ends=False, max_frames=4000)
    games.seed(0)
    games.reset()
    random = np.random.default_rng(0)
    for _ in range(1100):
        _, _, dones, infos = games.step(random.integers(0, 6, 2))
        for done, info in zip(dones, infos, strict=True):
            assert done == ("episode" in info)
            if done:
                assert info["TimeLimit.truncated"] == (4 * info["episode"]["l"] >= 4000 - 31)


def test_wrappers_need_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari_wrappers, "cv2", None)
    with pytest.raises(BlipError) as error:
        wrapped_atari("Boxing", 1)
    assert "opencv-python-headless" in one_line(error)
