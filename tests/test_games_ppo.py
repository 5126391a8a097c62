"""PPO: the published loss and schedule, the shared network, and methods attached from outside."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("stable_baselines3")
pytest.importorskip("ale_py")

from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from blip import BLIP
from blip.data import Examples
from blip.games.actor_critic import ActorCriticNetwork, AtariNetworkConfig
from blip.games.attached import attached
from blip.games.policy import GamePolicy
from blip.games.ppo import PublishedPPO
from blip.methods import METHODS, Method

ACTIONS = [3, 5]
COUNT, STEPS = 4, 8


class Noise(VecEnv):
    """Frames of noise; the reward is 1 for action 0. Quick, and nobody's game."""

    def __init__(self, actions: int, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        super().__init__(COUNT, spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(actions))

    def _frames(self) -> Any:
        return self.random.integers(0, 256, (COUNT, 4, 84, 84), dtype=np.uint8)

    def reset(self) -> Any:
        return self._frames()

    def step_async(self, actions: Any) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        dones = self.random.random(COUNT) < 0.1
        infos = [{"terminal_observation": self._frames()[0]} if done else {} for done in dones]
        return self._frames(), (self.actions == 0).astype(np.float32), dones, infos

    def close(self) -> None: ...

    def get_attr(self, name: str, indices: Any = None) -> list[Any]:
        return [None] * COUNT

    def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return []

    def env_is_wrapped(self, wrapper: Any, indices: Any = None) -> list[bool]:
        return [False] * COUNT


def make_network(seed: int = 0) -> ActorCriticNetwork:
    torch.manual_seed(seed)
    return ActorCriticNetwork(*AtariNetworkConfig(channels=(4, 4, 4), hidden=8).features((4, 84, 84)), ACTIONS)


def make_ppo(network: ActorCriticNetwork, task: int, kind: type[PPO] = PublishedPPO, **settings: Any) -> PPO:
    defaults = {"n_steps": STEPS, "batch_size": 8, "n_epochs": 2, "clip_range": 0.1, "ent_coef": 0.01}
    return kind(
        GamePolicy,
        Noise(ACTIONS[task]),
        policy_kwargs={"network": network, "task": task},
        device="cpu",
        **(defaults | settings),
    )


def make_method(name: str, network: ActorCriticNetwork) -> Method:
    settings: dict[str, dict[str, Any]] = {
        "blip": {"f_prior": 1e-12, "fisher_batch_size": 8, "fisher_batches": 4, "initialisation": "network"},
        "ewc": {"fisher": "sampled", "over_tasks": "sum", "fisher_batch_size": 8},
    }
    return METHODS[name](network, METHODS[name].Settings(**settings.get(name, {})), 0)


def last_rollout(ppo: PPO) -> Examples:
    images = torch.randint(0, 256, (32, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Examples(images, torch.zeros(32, dtype=torch.int64), torch.full((4, 1, 1), 1 / 255), torch.zeros(4, 1, 1))


def learn(method: Method, network: ActorCriticNetwork, task: int, kind: type[PPO] = PublishedPPO) -> PPO:
    """A task of three updates without its end."""
    ppo = make_ppo(network, task, kind)
    method.before_task(task)
    learn_with(method, ppo, 3 * COUNT * STEPS)
    return ppo


def learn_with(method: Method, ppo: PPO, steps: int) -> None:
    """As its own part of the loss, or attached from outside to Stable-Baselines3's."""
    if isinstance(ppo, PublishedPPO):
        ppo.method = method
        ppo.learn(steps)
    else:
        with attached(method, ppo.policy.optimizer):
            ppo.learn(steps)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# The network and its policy


def test_the_published_network() -> None:
    features, width = AtariNetworkConfig().features((4, 84, 84))
    network = ActorCriticNetwork(features, width, [14, 18])
    shapes = [tuple(p.shape) for p in network.parameters()]
    assert shapes[:8] == [(32, 4, 8, 8), (32,), (64, 32, 4, 4), (64,), (128, 64, 3, 3), (128,), (1024, 6272), (1024,)]
    assert shapes[8:] == [(14, 1024), (14,), (18, 1024), (18,), (1, 1024), (1,), (1, 1024), (1,)]
    linear = network.features[7].weight.detach()
    torch.testing.assert_close(linear @ linear.T, 2 * torch.eye(1024), atol=1e-4, rtol=0)
    head = network.heads[1].weight.detach()
    torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(18), atol=1e-8, rtol=0)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_a_policy_leaves_the_weights_alone_and_trains_its_own_heads() -> None:
    network = make_network()
    before = weights(network)
    policy = make_ppo(network, 1).policy
    torch.testing.assert_close(weights(network), before, rtol=0, atol=0)
    used = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    expected = [*network.features.parameters(), *network.heads[1].parameters(), *network.critics[1].parameters()]
    assert used == {id(p) for p in expected}
    assert policy.optimizer.defaults["eps"] == 1e-5


def test_a_policy_is_the_network() -> None:
    network = make_network()
    policy = make_ppo(network, 0).policy
    frames = torch.randint(0, 256, (6, 4, 84, 84), dtype=torch.uint8)
    with torch.no_grad():
        logits = network(frames / 255.0, 0)
        torch.testing.assert_close(policy.get_distribution(frames).distribution.logits, F.log_softmax(logits, 1))
        torch.testing.assert_close(policy.predict_values(frames), network.critics[0](network.features(frames / 255.0)))


def test_bfloat16_is_near() -> None:
    network = make_network()
    frames = torch.randint(0, 256, (6, 4, 84, 84), dtype=torch.uint8)
    half = GamePolicy(
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Discrete(3),
        lambda _: 1e-3,
        network=network,
        task=0,
        low_precision=True,
    )
    with torch.no_grad():
        value = half.predict_values(frames).squeeze(1)
        assert value.dtype == torch.float32
        exact = network.critics[0](network.features(frames / 255.0)).squeeze(1)
        assert 0 < (value - exact).abs().max() < 0.02 * exact.abs().max()


# The published loss and schedule


def test_the_loss_is_the_published_one() -> None:
    """One step from the formulas, written out with SB3's own distributions."""
    network = make_network()
    ppo = make_ppo(network, 0, n_epochs=1, batch_size=COUNT * STEPS, learning_rate=1e-3, clip_range=0.1)
    total, callback = ppo._setup_learn(10_000)
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, STEPS)
    # As if the policy had moved on since, so that ratios and values are clipped here and there.
    random = np.random.default_rng(0)
    ppo.rollout_buffer.log_probs += random.normal(0, 0.2, (STEPS, COUNT)).astype(np.float32)
    ppo.rollout_buffer.values += random.normal(0, 0.2, (STEPS, COUNT)).astype(np.float32)
    buffer = copy.deepcopy(ppo.rollout_buffer)
    twin = make_network()
    policy = make_ppo(twin, 0, learning_rate=1e-3).policy

    ppo._update_current_progress_remaining(ppo.num_timesteps, total)
    ppo.train()

    flat = {k: torch.from_numpy(getattr(buffer, k)).flatten() for k in ("log_probs", "values", "advantages", "returns")}
    advantages = (flat["advantages"] - flat["advantages"].mean()) / (flat["advantages"].std() + 1e-5)
    frames, actions = torch.from_numpy(buffer.observations).flatten(0, 1), torch.from_numpy(buffer.actions).flatten()
    values, log_prob, entropy = policy.evaluate_actions(frames, actions)
    values, ratio = values.flatten(), torch.exp(log_prob - flat["log_probs"])
    surrogate = torch.min(ratio * advantages, torch.clamp(ratio, 0.9, 1.1) * advantages).mean()
    clipped = flat["values"] + torch.clamp(values - flat["values"], -0.1, 0.1)
    error = torch.max((values - flat["returns"]) ** 2, (clipped - flat["returns"]) ** 2).mean()
    assert ((ratio - 1).abs() > 0.1).any()
    assert ((values - flat["values"]).abs() > 0.1).any()
    loss = -surrogate + 0.5 * 0.5 * error - 0.01 * entropy.mean()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    policy.optimizer.step()
    torch.testing.assert_close(weights(network), weights(twin), rtol=1e-5, atol=1e-7)
    assert ppo.statistics["value_loss"] == pytest.approx(0.5 * error.item(), rel=1e-5)
    assert ppo.statistics["entropy"] == pytest.approx(entropy.mean().item(), rel=1e-5)


def test_the_learning_rate_falls_linearly_and_the_last_update_has_one() -> None:
    ppo = make_ppo(make_network(), 0, learning_rate=lambda left: 2.5e-4 * left)
    used = []
    ppo.policy.optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    ppo.learn(4 * COUNT * STEPS)
    assert sorted(set(used), reverse=True) == pytest.approx([2.5e-4 * (1 - j / 4) for j in range(4)])


# Methods attached


def test_ranges_and_prior_go_by_the_larger_of_fan_in_and_output_units() -> None:
    """n: 4·8·8, 32·4·4, 64·3·3 and 6272 inputs, more than outputs; the prior of weights and biases is F_prior·n."""
    features, _ = AtariNetworkConfig().features((4, 84, 84))
    blip = BLIP(features, 5e-18, n="max-fan-in-outputs")
    for layer, n in {"0": 4 * 64, "2": 32 * 16, "4": 64 * 9, "7": 6272}.items():
        assert blip.bounds[f"{layer}.weight"] == pytest.approx(6 / n**0.5)
        assert blip.bounds[f"{layer}.bias"] == 1
        for kind in ("weight", "bias"):
            assert blip.running_fisher[f"{layer}.{kind}"].unique().item() == pytest.approx(5e-18 * n)


def test_the_few_initial_weights_outside_their_range_are_cut_at_the_start() -> None:
    """Their standard deviation is √(2/n), and the range 6/√n is 4.2 of those: 0.002 % of a normal distribution."""
    torch.manual_seed(0)
    network = ActorCriticNetwork(*AtariNetworkConfig().features((4, 84, 84)), ACTIONS)
    before = weights(network.features)
    settings = {"f_prior": 5e-18, "n": "max-fan-in-outputs", "initialisation": "network"}
    method = METHODS["blip"](network, METHODS["blip"].Settings(**settings), 0)
    cut = 0
    for name, parameter in network.features.named_parameters():
        bound = method.blip.bounds[name]  # type: ignore[attr-defined]
        assert parameter.abs().max() < bound
        cut += int((before[name].abs() >= bound).sum())
        inside = before[name].abs() < bound * (1 - 1e-5)
        assert torch.equal(parameter[inside], before[name][inside])
    assert 0 < cut < 5e-5 * sum(p.numel() for p in network.features.parameters())


@pytest.mark.parametrize("layer", [nn.Linear(3, 8), nn.Conv2d(2, 40, 3), nn.Conv2d(4, 40, 3, groups=2)])
def test_a_layer_with_more_outputs_than_inputs_goes_by_its_outputs(layer: nn.Linear | nn.Conv2d) -> None:
    assert BLIP(layer, 1e-3, n="max-fan-in-outputs").bounds["weight"] == pytest.approx(6 / len(layer.weight) ** 0.5)


@pytest.mark.parametrize("kind", [PublishedPPO, PPO], ids=["published", "SB3's own"])
@pytest.mark.parametrize("name", ["blip", "ewc", "sgd", "sgd-frozen"])
def test_methods_keep_what_they_promise_while_the_next_game_trains(name: str, kind: type[PPO]) -> None:
    network = make_network()
    method = make_method(name, network)
    ppo = learn(method, network, 0, kind)
    method.after_task(0, last_rollout(ppo))
    before = weights(network)
    learn(method, network, 1, kind)
    after = weights(network)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not {key for key in moved if key.startswith(("heads.0", "critics.0"))}, "heads of the first game"
    assert {"heads.1.weight", "critics.1.weight"} <= moved
    features = {key for key in moved if key.startswith("features")}
    assert bool(features) == (name != "sgd-frozen")
    if name == "blip":
        state = method.blip  # type: ignore[attr-defined]
        assert any(bits.any() for bits in state.bits.values()), "something is frozen"
        for key, bits in state.bits.items():
            radius = state.bounds[key] * torch.exp2(-bits.float())
            change = (after[f"features.{key}"] - before[f"features.{key}"]).abs()
            assert (change <= radius * (1 + 1e-6)).all()


@pytest.mark.parametrize("kind", [PublishedPPO, PPO], ids=["published", "SB3's own"])
def test_the_gradient_of_ewc_reaches_the_optimizer_and_is_clipped_with_that_of_the_loss(kind: type[PPO]) -> None:
    network = make_network()
    method = make_method("ewc", network)
    method.after_task(0, last_rollout(learn(method, network, 0)))
    with torch.no_grad():
        for p in network.features.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    gradients = {}
    for strength in (0.0, 5000.0):
        twin = copy.deepcopy(network)
        other = make_method("ewc", twin)
        other.settings = other.settings.model_copy(update={"strength": strength})
        other.load_state_dict(method.state_dict())
        torch.manual_seed(0)
        np.random.seed(0)
        settings = {"n_epochs": 1, "batch_size": COUNT * STEPS, "learning_rate": 1e-9}
        for norm in (1e9, 0.5):
            ppo = make_ppo(twin, 1, kind, max_grad_norm=norm, **settings)
            seen: dict[str, Tensor] = {}

            def look(*_: Any, seen: dict[str, Tensor] = seen, twin: ActorCriticNetwork = twin) -> None:
                seen.update({k: p.grad.clone() for k, p in twin.named_parameters() if p.grad is not None})

            ppo.policy.optimizer.register_step_pre_hook(look)
            torch.manual_seed(0)
            learn_with(other, ppo, COUNT * STEPS)
            gradients[strength, norm] = seen
    expected = {
        f"features.{k}": 5000 * method.fisher[k] * (p.detach() - method.anchor[k])  # type: ignore[attr-defined]
        for k, p in network.features.named_parameters()
    }
    assert max(e.abs().max() for e in expected.values()) > 1e-3
    for key, gradient in gradients[5000.0, 1e9].items():
        alone = gradients[0.0, 1e9][key]
        torch.testing.assert_close(gradient - alone, expected.get(key, torch.zeros_like(alone)), rtol=1e-3, atol=1e-5)
    together = torch.cat([g.flatten() for g in gradients[5000.0, 1e9].values()])
    clipped = torch.cat([g.flatten() for g in gradients[5000.0, 0.5].values()])
    assert together.norm() > 0.5
    torch.testing.assert_close(clipped, together * 0.5 / together.norm(), rtol=1e-3, atol=1e-6)


def test_a_learning_rate_on_the_device_is_written_in_place() -> None:
    ppo = make_ppo(make_network(), 0, learning_rate=lambda left: 0.5 * left)
    (group,) = ppo.policy.optimizer.param_groups
    group["lr"] = rate = torch.tensor(0.5)
    ppo.learn(2 * COUNT * STEPS)
    assert group["lr"] is rate, "or a recorded step would go on with the old one"
    assert float(rate) == 0.25


def test_each_rollout_comes_into_the_same_memory() -> None:
    ppo = make_ppo(make_network(), 0)
    ppo.learn(COUNT * STEPS)
    places, actions = [tensor.data_ptr() for tensor in ppo._rollout], ppo._rollout[1].clone()
    ppo.learn(COUNT * STEPS)
    assert [tensor.data_ptr() for tensor in ppo._rollout] == places
    assert ppo._rollout[0].dtype == torch.uint8
    assert not torch.equal(ppo._rollout[1], actions)
