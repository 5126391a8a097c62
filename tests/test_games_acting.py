"""Acting in two halves of the games, as on a GPU; on a CPU, with a stand-in for CUDA graphs."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stand_in_cuda import FakeGraph, stand_in_cuda

pytest.importorskip("stable_baselines3")
pytest.importorskip("ale_py")

from stable_baselines3.common.buffers import RolloutBuffer
from test_games_ppo import COUNT, STEPS, Noise, make_network, make_ppo
from test_games_training import QUICK, make_trainer, results

from blip.games.acting import Acting
from blip.games.atari import NativeAtari
from blip.games.evaluation import by_network, play
from blip.games.policy import GamePolicy
from blip.games.ppo import PublishedPPO
from blip.networks import MultiHeadNetwork
from blip.training.graphs import WARM_UP

CPU = torch.device("cpu")


@pytest.fixture
def recordings() -> Iterator[list[FakeGraph]]:
    with stand_in_cuda() as made:
        yield made


class NoiseInParts(Noise):
    """`Noise` of which a part can be stepped; the steps of all games are those of the first part that asks."""

    cut = False
    """Whether games that are done were cut."""

    def reset(self) -> Any:
        self.actions, self.begun = np.zeros(COUNT, dtype=np.int64), list[int]()
        return super().reset()

    def begin(self, part: slice, actions: Any) -> None:
        assert part.start not in self.begun, "ended before it is begun again"
        self.actions[part] = actions
        self.begun.append(part.start)

    def end(self, part: slice) -> Any:
        self.begun.remove(part.start)
        if part.start == 0:
            self.stepped = super().step_wait()
            for i in np.flatnonzero(self.stepped[2]):
                self.stepped[3][i]["TimeLimit.truncated"] = self.cut
        observations, _, dones, infos = self.stepped
        return observations[part], (self.actions[part] == 0).astype(np.float32), dones[part], infos[part]


def collected(cut: bool = False, graphs: bool = False) -> PublishedPPO:
    """After a rollout in halves."""
    ppo = make_ppo(make_network(), 1)
    assert isinstance(ppo, PublishedPPO)
    environments = NoiseInParts(5)
    environments.cut = cut
    ppo.env, ppo.halves, ppo.cuda_graphs = environments, True, graphs
    ppo.begin(10 * COUNT * STEPS)
    ppo.start(0)
    torch.manual_seed(3)
    ppo.collect()
    return ppo


@pytest.mark.parametrize("cut", [False, True])
def test_a_rollout_in_halves_holds_what_stable_baselines_would_have_stored(cut: bool) -> None:
    """Its own buffer is given the same steps, one by one, with values and probabilities of its own policy."""
    ppo = collected(cut)
    ours, theirs = ppo.rollout_buffer, RolloutBuffer(STEPS, *_spaces(ppo), CPU, 0.95, 0.99, COUNT)
    again = Noise(5)
    again.reset()  # by SB3's set-up
    seen, starts = again.reset(), np.ones(COUNT)
    n_cut = 0
    for t in range(STEPS):
        with torch.no_grad():
            x, actions = torch.from_numpy(seen), torch.from_numpy(ours.actions[t, :, 0])
            values, log_probs, _ = ppo.policy.evaluate_actions(x, actions)
        after, rewards, dones, infos = again.step(actions.numpy())
        for i in np.flatnonzero(dones) if cut else ():
            last = torch.from_numpy(infos[i]["terminal_observation"][None])
            rewards[i] += 0.99 * float(ppo.policy.predict_values(last).detach())
            n_cut += 1
        theirs.add(seen, actions.numpy(), rewards, starts, values, log_probs)
        seen, starts = after, dones
    with torch.no_grad():
        theirs.compute_returns_and_advantage(ppo.policy.predict_values(torch.from_numpy(seen)), dones)
    assert n_cut or not cut
    assert (ours.observations == theirs.observations).all()
    assert (ours.episode_starts == theirs.episode_starts).all()
    assert (ppo._last_obs == seen).all()
    assert (ppo._last_episode_starts == starts).all()
    for name in ("rewards", "values", "log_probs", "advantages", "returns"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert ppo.num_timesteps == COUNT * STEPS


def _spaces(ppo: PublishedPPO) -> tuple[Any, Any]:
    return ppo.observation_space, ppo.action_space


def test_an_update_reads_what_acting_left_on_the_device() -> None:
    ppo = collected()
    before = [tensor.clone() for tensor in ppo._rollout[:4]]
    ppo._load_rollout()
    buffer = ppo.rollout_buffer
    expected = (buffer.observations, buffer.actions[..., 0], buffer.log_probs, buffer.values)
    for tensor, same, array in zip(ppo._rollout[:4], before, expected, strict=True):
        assert torch.equal(tensor, same)
        assert (tensor.numpy() == array.reshape(tensor.shape)).all()
    np.testing.assert_array_equal(ppo._rollout[5].numpy(), buffer.returns.reshape(-1))


def test_actions_are_drawn_from_the_policy() -> None:
    """4,000 draws, each from a distribution of its own: as often as their probabilities say, within four deviations."""
    torch.manual_seed(0)
    count, steps, network = 400, 10, make_network()
    with torch.no_grad():
        network.heads[1].weight.mul_(40)
    policy = make_ppo(network, 1).policy
    assert isinstance(policy, GamePolicy)
    n = count * steps
    rollout = [torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8), torch.zeros(n, dtype=torch.int64)]
    acting = Acting(policy, [*rollout, torch.zeros(n), torch.zeros(n)], steps, count, graphs=False)
    acting._noise.exponential_().log_().neg_()
    acting._act_at(torch.arange(n))
    with torch.no_grad():
        probabilities = policy.get_distribution(rollout[0]).distribution.probs  # type: ignore[union-attr]
    drawn = torch.nn.functional.one_hot(rollout[1], 5).float()
    deviations = (drawn - probabilities).sum(0) / (probabilities * (1 - probabilities)).sum(0).sqrt()
    assert deviations.abs().max() < 4
    assert probabilities.std(0).max() > 0.01, "the images matter"


def test_halves_of_real_games_are_the_same_games() -> None:
    """An odd number of them, and fewer threads than games in a half."""
    games, again = (NativeAtari("Boxing", 5, threads=2) for _ in range(2))
    for one in (games, again):
        one.seed(7)
    np.testing.assert_array_equal(games.reset(), again.reset())
    random = np.random.default_rng(0)
    first, second = slice(0, 3), slice(3, 5)
    for _ in range(20):
        actions = random.integers(0, 18, 5)
        for half in (first, second):
            games.begin(half, actions[half])
        parts = [games.end(half) for half in (first, second)]
        observations, rewards, dones, _ = again.step(actions)
        for k, whole in enumerate((observations, rewards, dones)):
            np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), whole)
    for one in (games, again):
        one.close()


def test_recorded_acting_gives_the_same_bytes(tmp_path: Path, recordings: list[FakeGraph]) -> None:
    """Of whole runs; on a GPU, `tests/test_gpu.py` tests it with every method."""
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    made = []
    for graphs in (True, False):
        trainer = make_trainer(path, "blip", tmp_path / str(graphs), ppo__steps=64)
        trainer.cuda_graphs = graphs
        make = trainer._fresh_ppo

        def in_halves(make: Any = make) -> PublishedPPO:
            ppo: PublishedPPO = make()
            ppo.halves = True
            return ppo

        trainer._fresh_ppo = in_halves  # type: ignore[method-assign]
        trainer.run("test")
        made.append(trainer)
    (graphed, graphed_tables), (eager, eager_tables) = map(results, made)
    assert all(torch.equal(graphed[name], eager[name]) for name in eager)
    assert graphed_tables == eager_tables
    acted = [graph for graph in recordings if graph.replays == 2 * 16 - WARM_UP]
    assert len(acted) == 4, "two halves in each of two games"


def test_games_that_are_over_leave_the_recorded_batch_as_large_as_it_was(recordings: list[FakeGraph]) -> None:
    """Games of unequal length, each played as by itself."""
    network = make_network()
    assert isinstance(network, MultiHeadNetwork)
    network.eval()
    with torch.no_grad():
        network.heads[0].weight.mul_(40)
    sizes: list[int] = []
    network.features.register_forward_hook(lambda *call: sizes.append(len(call[1][0])))
    played = [
        play("Breakout", by_network(network, 0, CPU, graphs=graphs), 4, 0, max_frames=2000) for graphs in (True, False)
    ]
    assert played[0] == played[1]
    assert len({game.length for game in played[0]}) > 1
    assert len(recordings) == 1
    n = 1 + max(game.length for game in played[0])
    assert set(sizes[:n]) == {4}
    assert set(sizes[n:]) != {4}


def test_the_recording_of_an_evaluation_goes_with_it(recordings: list[FakeGraph]) -> None:
    """At once: a graph's memory on the device is none of Python's, which would not look for circles because of it."""
    network = make_network()
    network.eval()
    act = by_network(network, 0, CPU, graphs=True)
    for _ in range(WARM_UP + 2):
        act(np.zeros((3, 4, 84, 84), dtype=np.uint8))
    (graph,) = recordings
    recordings.clear()
    alive = weakref.ref(graph)
    gc.disable()
    try:
        del act, graph
        assert alive() is None
    finally:
        gc.enable()
