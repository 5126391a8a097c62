"""BLIP around any network and any optimizer: what its docstring promises."""

import copy
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim import SGD, Adam, AdamW, Optimizer

from blip import BLIP, UnprotectedWarning, diagonal_fisher
from blip.core import formulas as q
from blip.core.layers import fan_in


class Tied(nn.Module):
    """Two layers with one weight and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "mlp": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)),
    "conv1d": lambda: nn.Sequential(nn.Conv1d(2, 3, 2)),
    "conv2d": lambda: nn.Sequential(nn.Conv2d(4, 4, (1, 2), groups=2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)),
    "conv3d": lambda: nn.Sequential(nn.Conv3d(1, 2, 2, bias=False)),
    "tied": Tied,
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 2, 3, groups=2), nn.GroupNorm(1, 2)),
    "norms": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm((2, 4)), nn.BatchNorm1d(2), nn.RMSNorm(4)),
    "embedding": lambda: nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 2)),
    "weight_norm": lambda: nn.Sequential(weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2)),
}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.3, momentum=0.9),
    "adam": lambda p: Adam(p, lr=0.3),
    "adamw": lambda p: AdamW(p, lr=0.3, weight_decay=0.5),
}


def rounding(bound: float) -> float:
    """What a few float32 operations on numbers up to `bound` may be off."""
    return 8 * bound * 2.0**-24


def random_fisher(blip: BLIP, random: torch.Generator) -> dict[str, Tensor]:
    """Up to 10^16 times the prior, or less in some tasks, so that bits grow by 0 to 20 and more, early or late."""
    most = 20 * float(torch.rand(1, generator=random))
    return {
        name: 1e-3 * 10 ** (most * torch.rand(p.shape, generator=random) - 4) for name, p in blip.parameters.items()
    }


def random_step(optimizer: Optimizer, parameters: list[nn.Parameter], random: torch.Generator) -> None:
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=random)
    optimizer.step()


def centre(blip: BLIP, name: str) -> Tensor:
    return blip.centres.get(name, torch.zeros(()))


def values(blip: BLIP) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in blip.parameters.items()}


def consolidated(network: nn.Module, tasks: int = 1, max_bits: int = 20) -> BLIP:
    blip = BLIP(network, 1e-3, max_bits=max_bits)
    random = torch.Generator().manual_seed(0)
    for _ in range(tasks):
        blip.consolidate(random_fisher(blip, random))
    return blip


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 9999), st.integers(1, 20))
def test_parameters_stay_in_their_ranges_and_anchors_move_by_one_step(
    network: str, optimizer: str, steps: list[int], seed: int, max_bits: int
) -> None:
    """The invariant of the docstring, over tasks of some steps each."""
    random = torch.Generator().manual_seed(seed)
    module = NETWORKS[network]()
    blip = BLIP(module, 1e-3, max_bits=max_bits)
    blip.clamp_()
    parameters = list(module.parameters())
    anchors = {name: torch.zeros_like(p) + centre(blip, name) for name, p in blip.parameters.items()}
    bits = {name: torch.zeros(p.shape, dtype=torch.uint8) for name, p in blip.parameters.items()}
    for count in steps:
        opt = OPTIMIZERS[optimizer](parameters)
        handle = blip.attach(opt)
        for _ in range(count):
            random_step(opt, parameters, random)
            for name, p in blip.parameters.items():
                bound = blip.bounds[name]
                radius = bound * torch.exp2(-bits[name].float())
                limit = bound * (1 - 0.5**max_bits)
                middle = centre(blip, name)
                assert ((p - middle).abs() <= limit + (rounding(bound) if middle.any() else 0)).all()
                nearest = (anchors[name] - middle).clamp(-limit, limit) + middle  # an anchor of ±B lies just outside
                assert ((p - nearest).abs() <= radius + rounding(bound)).all()
        handle.remove()
        before = {name: anchors[name] - centre(blip, name) for name in anchors}
        blip.consolidate(random_fisher(blip, random))
        for name, p in blip.parameters.items():
            bound = blip.bounds[name]
            moves = q.anchor_moves(before[name], bits[name], blip.anchors()[name], blip.bits[name], bound)
            assert (moves <= 1).all(), "exactly"
            moved = (p - anchors[name]).abs() / (bound * torch.exp2(-bits[name].float()))
            assert ((moves - moved).abs() <= torch.exp2(bits[name].float() - 19)).all()
            assert (blip.bits[name] >= bits[name]).all()
            assert (blip.bits[name] <= max_bits).all()
            radius = bound * torch.exp2(-bits[name].float())
            assert ((p - anchors[name]).abs() <= radius + rounding(bound)).all()
            levels = (p.double() - centre(blip, name)) / bound * torch.exp2(blip.bits[name].double())
            assert ((levels - levels.round()).abs() <= 2.0 ** (max_bits - 22)).all(), "the anchor is on its grid"
            anchors[name], bits[name] = p.detach().clone(), blip.bits[name]


def test_the_running_fisher_is_the_mean_over_the_prior_and_all_tasks() -> None:
    blip = BLIP(NETWORKS["mlp"](), 1e-3)
    random = torch.Generator().manual_seed(0)
    seen = [dict(blip.running_fisher)]
    for _ in range(4):
        seen.append(random_fisher(blip, random))
        blip.consolidate(seen[-1])
        for name, running in blip.running_fisher.items():
            torch.testing.assert_close(running, torch.stack([fisher[name] for fisher in seen]).mean(0))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("max_bits", [4, 20])
def test_fully_frozen_parameters_move_by_at_most_the_last_bit(optimizer: str, max_bits: int) -> None:
    module = NETWORKS["mlp"]()
    blip = BLIP(module, 1e-3, max_bits=max_bits)
    blip.consolidate({name: torch.full_like(p, 1e20) for name, p in blip.parameters.items()})
    assert blip.capacity() == 1
    anchors, parameters = values(blip), list(module.parameters())
    opt = OPTIMIZERS[optimizer](parameters)
    blip.attach(opt)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        random_step(opt, parameters, random)
    for name, p in blip.parameters.items():
        assert (p - anchors[name]).abs().max() <= blip.bounds[name] * 0.5**max_bits + rounding(blip.bounds[name])


def test_parameters_without_frozen_bits_are_free() -> None:
    layer = nn.Linear(4, 3)
    blip = BLIP(layer, 1e-3)
    blip.consolidate({name: torch.full_like(p, 1e-9) for name, p in blip.parameters.items()})
    with torch.no_grad():
        layer.weight.fill_(2.9)  # B = 3
        layer.bias.fill_(5.0)
    blip.clamp_()
    assert torch.equal(layer.weight, torch.full((3, 4), 2.9))
    assert torch.equal(layer.bias, torch.full((3,), 1 - 0.5**20))


def test_the_head_and_layers_of_other_kinds_are_untouched() -> None:
    features, head = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3)), nn.Linear(3, 2)
    parameters = [*features.parameters(), *head.parameters()]
    blip = BLIP(features, 1e-3, unprotected=["1"])
    assert set(blip.parameters) == {"0.weight", "0.bias"}
    opt = SGD(parameters, lr=100)
    blip.attach(opt)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    opt.step()
    blip.consolidate({name: torch.ones_like(p) for name, p in blip.parameters.items()})
    for p, old in zip(parameters[2:], before[2:], strict=True):
        assert torch.equal(p, old - 100)
    assert features[0].bias.abs().max() <= 1


def test_parameters_that_do_not_train_are_left_alone() -> None:
    features = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    features[0].requires_grad_(False)
    before = features[0].weight.clone()
    blip = BLIP(features, 1e-3)
    assert set(blip.parameters) == {"2.weight", "2.bias"}
    blip.initialise_()
    blip.clamp_()
    blip.consolidate(diagonal_fisher(features, features, [torch.randn(5, 4)]))
    assert torch.equal(features[0].weight, before)


def test_removing_the_handle_stops_the_clamp() -> None:
    layer = nn.Linear(4, 3)
    opt = SGD(layer.parameters(), lr=100)
    handle = BLIP(layer, 1e-3).attach(opt)
    for attached in (True, False):
        if not attached:
            handle.remove()
        for p in layer.parameters():
            p.grad = torch.ones_like(p)
        opt.step()
        assert (layer.bias.abs().max() <= 1) == attached


def test_an_optimizer_of_another_network_is_refused() -> None:
    layer, other = nn.Linear(4, 3), nn.Linear(4, 3)
    with pytest.raises(ValueError, match="it has none of its parameters"):
        BLIP(layer, 1e-3).attach(SGD(other.parameters(), lr=1))
    BLIP(layer, 1e-3).attach(SGD([*other.parameters(), layer.bias], lr=1))


@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_a_saved_state_goes_on_identically(tasks: int, tmp_path: Path) -> None:
    first, second = NETWORKS["mlp"](), NETWORKS["mlp"]()
    blip = consolidated(first, tasks)
    torch.save({"blip": blip.state_dict(), "network": first.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state["network"])
    # The one that takes the state up was in use before: nothing of that may remain.
    other = consolidated(second, 2)
    second.load_state_dict(state["network"])
    other.load_state_dict(state["blip"])
    results = []
    for network, instance in ((first, blip), (second, other)):
        random = torch.Generator().manual_seed(1)
        opt = SGD(network.parameters(), lr=1)
        instance.attach(opt)
        for _ in range(2):
            for _ in range(3):
                random_step(opt, list(network.parameters()), random)
            instance.consolidate(random_fisher(instance, random))
        results.append((network.state_dict(), instance.state_dict(), instance.capacity()))
    assert results[0][2] == results[1][2]
    torch.testing.assert_close(results[0][:2], results[1][:2], rtol=0, atol=0)


@pytest.mark.parametrize(
    "other",
    [nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2, bias=False))],
    ids=["layers", "widths"],
)
def test_the_state_of_another_network_is_refused(other: nn.Module) -> None:
    state = consolidated(other).state_dict()
    with pytest.raises(ValueError, match="other layers"):
        BLIP(NETWORKS["mlp"](), 1e-3).load_state_dict(state)


def tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from tensors(v)


def test_state_takes_at_most_17_bytes_per_parameter_however_many_tasks() -> None:
    network = NETWORKS["conv2d"]()
    blip = BLIP(network, 1e-3)
    count = sum(p.numel() for p in blip.parameters.values())
    own = {id(p) for p in network.parameters()}
    random = torch.Generator().manual_seed(0)
    sizes = []
    for _ in range(5):
        blip.consolidate(random_fisher(blip, random))
        held = {id(t): t.nbytes for t in tensors([vars(blip), blip.state_dict()]) if id(t) not in own}
        sizes.append(sum(held.values()))
        assert sizes[-1] <= 17 * count
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("2.weight"), "2.weight"),
        (lambda f: f.update({"0.bias": torch.ones(1)}), r"shape \(3,\) for 0.bias"),
        (lambda f: f["0.weight"].view(-1)[3].fill_(math.nan), "0.weight is negative or not finite"),
        (lambda f: f["0.weight"].fill_(math.inf), "0.weight is negative or not finite"),
        (lambda f: f["0.bias"].view(-1)[0].fill_(-1e-9), "0.bias is negative or not finite"),
    ],
    ids=["missing", "shape", "nan", "infinite", "negative"],
)
def test_bad_fisher_information_is_refused_and_changes_nothing(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    blip = consolidated(NETWORKS["mlp"]())
    fisher = {name: torch.ones_like(p) for name, p in blip.parameters.items()}
    change(fisher)
    before, bits = values(blip), dict(blip.bits)
    with pytest.raises(ValueError, match=message):
        blip.consolidate(fisher)
    assert blip.tasks == 1
    torch.testing.assert_close([values(blip), blip.bits], [before, bits], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (nn.Linear(2, 2), {"f_prior": 0.0}, "positive"),
        (nn.Linear(2, 2), {"f_prior": math.nan}, "positive"),
        (nn.Linear(2, 2), {"f_prior": math.inf}, "finite"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "weight_range": -1}, "positive"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "bias_range": 0}, "positive"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "max_bits": 0}, "between 1 and 24"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "max_bits": 25}, "between 1 and 24"),
        (nn.Sequential(nn.ReLU(), nn.PReLU(3)), {"f_prior": 1e-3}, "no layer"),
        (nn.Linear(2, 2), {"f_prior": 1e-60}, "0 or infinite in float32"),
        (nn.Linear(200, 2), {"f_prior": 1e38}, "0 or infinite in float32"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "unprotected": ["wieght"]}, "named wieght"),
        (nn.Linear(2, 2), {"f_prior": 1e-3, "unprotected": "weight"}, "list of names"),
        (nn.Linear(2, 2).half(), {"f_prior": 1e-3}, "weight is float16, which cannot hold frozen bits"),
        (nn.Linear(2, 2).bfloat16(), {"f_prior": 1e-3}, "weight is bfloat16, which cannot hold frozen bits"),
    ],
)
def test_bad_arguments_are_refused(features: nn.Module, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BLIP(features, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bits", "max_bits", "expected"),
    [([0, 0, 0, 0], 20, 0.0), ([20, 20, 20, 20], 20, 1.0), ([1, 2, 3, 4], 10, 0.25), ([5, 5, 0, 0], 5, 0.5)],
)
def test_capacity_is_the_share_of_frozen_bits(bits: list[int], max_bits: int, expected: float) -> None:
    blip = BLIP(nn.Linear(3, 1), 1e-3, max_bits=max_bits)
    blip.bits = {"weight": torch.tensor([bits[:3]], dtype=torch.uint8), "bias": torch.tensor(bits[3:])}
    assert blip.capacity() == expected


def test_capacity_does_not_overflow_the_integers_of_the_bits() -> None:
    blip = BLIP(nn.Linear(100, 100), 1e-3)
    blip.consolidate({name: torch.full_like(p, 1e20) for name, p in blip.parameters.items()})
    assert blip.capacity() == 1


@pytest.mark.parametrize(
    ("layer", "n"),
    [
        (nn.Linear(7, 2), 7),
        (nn.Conv1d(4, 2, 3), 12),
        (nn.Conv2d(4, 2, (3, 5)), 60),
        (nn.Conv2d(4, 2, 3, groups=2), 18),
        (nn.Conv3d(2, 1, 2), 16),
        (nn.ConvTranspose2d(6, 2, 3, groups=2), 27),
        (nn.LayerNorm(7), 1),
        (nn.BatchNorm2d(7), 1),
    ],
)
def test_ranges_and_priors_follow_the_fan_in(layer: nn.Linear, n: int) -> None:
    assert fan_in(layer) == n
    blip = BLIP(layer, 1e-3, weight_range=20)
    assert blip.bounds == {"weight": pytest.approx(20 / n**0.5), "bias": 1.0}
    for prior in blip.running_fisher.values():
        torch.testing.assert_close(prior, torch.full_like(prior, 1e-3 * n))


def test_tied_weights_have_one_state() -> None:
    assert set(BLIP(Tied(), 1e-3).parameters) == {"first.weight", "first.bias", "second.bias"}


def test_initial_weights_are_normal_with_the_inverse_fan_in_as_variance() -> None:
    layer = nn.Linear(64, 500)
    BLIP(layer, 1e-3).initialise_(torch.Generator().manual_seed(0))
    assert torch.equal(layer.bias, torch.zeros(500))
    assert layer.weight.mean().abs().item() < 4 / math.sqrt(64 * layer.weight.numel())
    assert layer.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    # About 4.6 % of a normal distribution lies more than two standard deviations out.
    assert ((layer.weight.abs() > 2 / 8).double().mean().item()) == pytest.approx(0.0455, abs=0.006)


def test_initial_weights_are_clamped_to_their_range_and_follow_the_generator() -> None:
    weights = []
    for seed in (0, 0, 1):
        layer = nn.Linear(64, 500)
        BLIP(layer, 1e-3, weight_range=1).initialise_(torch.Generator().manual_seed(seed))
        weights.append(layer.weight.detach())
    assert weights[0].abs().max() == 1 / 8
    assert 0.2 < (weights[0].abs() == 1 / 8).double().mean() < 0.45
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


MODULES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "lstm": (lambda: nn.LSTM(3, 2), {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}),
    "prelu": (nn.PReLU, {"weight"}),
    "bilinear": (lambda: nn.Bilinear(2, 2, 2), {"weight", "bias"}),
    "bare": (lambda: nn.ParameterList([torch.zeros(2)]), {"0"}),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2),
        {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"},
    ),
    "max_norm": (lambda: nn.Embedding(3, 2, max_norm=1), {"weight"}),
    "norm over the batch": (lambda: nn.BatchNorm1d(2, track_running_stats=False), {"weight", "bias"}),
    "parametrised norm": (
        lambda: weight_norm(nn.LayerNorm(2), dim=0),
        {"parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "old weight_norm": (lambda: old_weight_norm(nn.Linear(3, 2)), {"weight_g", "weight_v"}),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", MODULES)
def test_what_trains_without_protection_is_named(kind: str) -> None:
    build, expected = MODULES[kind]
    features = nn.ModuleDict({"a": nn.Linear(2, 2), "b": build()})
    names = {f"b.{name}" for name in expected}
    with pytest.warns(UnprotectedWarning) as warned:
        blip = BLIP(features, 1e-3)
    message = str(warned[0].message)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert all(name in message for name in names)
    assert set(blip.parameters) == {name for name, _ in features.named_parameters()} - names
    with pytest.raises(ValueError, match=re.escape(message)):
        BLIP(features, 1e-3, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BLIP(features, 1e-3, strict=True, unprotected=names)
        assert set(BLIP(features, 1e-3, strict=True, unprotected=["b"]).parameters) == {"a.weight", "a.bias"}
        features["b"].requires_grad_(False)
        BLIP(features, 1e-3, strict=True)


def test_the_state_is_float32_for_parameters_of_double_precision_too() -> None:
    blip = consolidated(nn.Linear(4, 3).double(), 2)
    kinds = {t.dtype for t in tensors(blip.state_dict())}
    assert kinds == {torch.float32, torch.uint8}
    blip.clamp_()
    assert blip.parameters["weight"].dtype == torch.float64


def ones(blip: BLIP) -> dict[str, Tensor]:
    return {name: torch.ones_like(p) for name, p in blip.parameters.items()}


def replace(features: nn.Module) -> None:
    features[2].weight = nn.Parameter(features[2].weight.detach().clone())  # type: ignore[index,operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace, r"2\.weight was replaced"),
        (lambda f: f[0].requires_grad_(True), r"0\.bias, 0\.weight: trains now"),
        (lambda f: f[2].requires_grad_(False), r"2\.weight .* does not any more"),
        (lambda f: f.append(nn.PReLU()), r"3\.weight: trains now"),
        (lambda f: f.half(), r"2\.weight is float16"),
    ],
    ids=["replaced", "unfrozen", "frozen", "added", "half"],
)
def test_a_network_that_changed_is_noticed_at_the_next_consolidation(
    change: Callable[[nn.Module], object], message: str
) -> None:
    features = nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.ReLU(), nn.Linear(3, 2))
    blip = BLIP(features, 1e-3)
    blip.consolidate(ones(blip))
    change(features)
    with pytest.raises(ValueError, match=message):
        blip.consolidate(ones(blip))
    assert blip.tasks == 1


@pytest.mark.parametrize("tasks", [0, 2])
@pytest.mark.parametrize(
    ("value", "message"), [(math.nan, "not finite"), (math.inf, "not finite"), (400.0, "outside of their range")]
)
def test_weights_that_training_cannot_have_left_are_refused(tasks: int, value: float, message: str) -> None:
    features = NETWORKS["norms"]()
    blip = consolidated(features, tasks)
    blip.clamp_()
    with torch.no_grad():
        features[1].weight[0, 1] = value
    before, bits = values(blip), dict(blip.bits)
    with pytest.raises(ValueError, match=rf"1\.weight.*{message}"):
        blip.consolidate(ones(blip))
    torch.testing.assert_close([values(blip), blip.bits], [before, bits], rtol=0, atol=0, equal_nan=True)
    if value == 400:
        blip.clamp_()
        blip.consolidate(ones(blip))


def test_fisher_information_that_is_zero_everywhere_is_refused() -> None:
    blip = BLIP(NETWORKS["mlp"](), 1e-3)
    fisher = {name: torch.zeros_like(p) for name, p in blip.parameters.items()}
    with pytest.raises(ValueError, match="zero everywhere"):
        blip.consolidate(fisher)
    fisher["0.bias"][0] = 1e-9
    blip.consolidate(fisher)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fisher_information_whose_average_would_overflow_is_refused(dtype: torch.dtype) -> None:
    """The bits of the first task were lost, and the capacity 0 again."""
    blip = BLIP(nn.Linear(4, 3), 10)
    blip.consolidate({name: torch.full_like(p, 3e38) for name, p in blip.parameters.items()})
    capacity, running = blip.capacity(), dict(blip.running_fisher)
    assert capacity > 0.9
    huge = 3e38 if dtype == torch.float32 else 1e300
    with pytest.raises(ValueError, match="overflows"):
        blip.consolidate({name: torch.full_like(p, huge, dtype=dtype) for name, p in blip.parameters.items()})
    assert blip.capacity() == capacity
    torch.testing.assert_close(blip.running_fisher, running, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bits"), "has no bits"),
        (lambda s: s.update(tasks=-1), "tasks: expected a whole number"),
        (lambda s: s.update(tasks=1.5), "tasks: expected a whole number"),
        (lambda s: s["bits"]["1.bias"].fill_(21), "bits of 1.bias: expected values from 0 to 20"),
        (lambda s: s["bits"].update({"1.bias": torch.zeros(2, 4)}), "bits of 1.bias: expected uint8, found float32"),
        (lambda s: s["bits"].update({"1.bias": None}), "bits of 1.bias: expected a tensor, found NoneType"),
        (lambda s: s["running_fisher"].pop("1.bias"), "running_fisher: .* other layers"),
        (lambda s: s["running_fisher"].update({"1.bias": torch.ones(4)}), r"other layers: \(4,\), not \(2, 4\)"),
        (lambda s: s["running_fisher"]["1.bias"].fill_(math.nan), "running_fisher of 1.bias: has values that are not"),
        (lambda s: s["running_fisher"]["1.bias"].fill_(0), "running_fisher of 1.bias: expected values"),
        (lambda s: s["ranges"].clear(), "ranges: .* other layers"),
        (lambda s: s["ranges"].update({"1.weight": None}), "ranges of 1.weight: expected the lowest and the highest"),
        (lambda s: s["ranges"]["1.weight"].reverse(), "ranges of 1.weight: expected lowest ≤ highest"),
        (lambda s: s["ranges"]["0.weight"][1].fill_(9), "ranges of 0.weight: expected lowest ≤ highest"),
        (lambda s: s["ranges"]["0.weight"][1].fill_(math.inf), "ranges of 0.weight: has values that are not finite"),
        (lambda s: s.pop("centres"), "centres: .* other layers"),
        (lambda s: s.update(max_bits=19), "max_bits: the state is of 19, expected 20"),
        (lambda s: s["bounds"].update({"0.weight": 9.0}), "bounds of 0.weight: the state is of ±9.0, expected ±"),
        (lambda s: s["centres"]["1.weight"].fill_(math.nan), "centres of 1.weight: has values that are not finite"),
    ],
)
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = copy.deepcopy(consolidated(NETWORKS["norms"](), 2).state_dict())
    change(state)
    blip = consolidated(NETWORKS["norms"]())
    before = copy.deepcopy(blip.state_dict())
    with pytest.raises(ValueError, match=message):
        blip.load_state_dict(state)
    torch.testing.assert_close(blip.state_dict(), before, rtol=0, atol=0)


def test_a_state_of_before_ranges_were_said_is_taken_up() -> None:
    state = consolidated(NETWORKS["norms"](), 2).state_dict()
    del state["max_bits"], state["bounds"]
    blip = consolidated(NETWORKS["norms"]())
    blip.load_state_dict(state)
    assert blip.tasks == 2


class Scaled(nn.Module):
    """Equalised learning rate: the weight is the parameter / √n."""

    def forward(self, v: Tensor) -> Tensor:
        return v / math.sqrt(v[0].numel())


def test_a_state_whose_middle_is_far_from_0_is_taken_up_again() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4608, 40)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())
    with torch.no_grad():
        layer.parametrizations.weight.original.normal_()  # type: ignore[union-attr, operator]
    blip = consolidated(nn.Sequential(layer))
    blip.load_state_dict(copy.deepcopy(blip.state_dict()))
    assert blip.tasks == 1


def test_a_misspelled_n_is_refused() -> None:
    with pytest.raises(ValueError, match="n: expected 'fan-in' or 'max-fan-in-outputs', found 'fan_in'"):
        BLIP(nn.Linear(4, 3), 1e-10, n="fan_in")  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.InstanceNorm1d(30, affine=True, track_running_stats=True)])
def test_running_statistics_that_a_further_task_changes_are_named(norm: nn.Module) -> None:
    features = nn.Sequential(nn.Linear(3, 4), norm)

    def learn(blip: BLIP) -> None:
        features(torch.randn(30, 3))
        blip.consolidate({name: torch.full_like(p, 1e-3) for name, p in blip.parameters.items()})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blip = BLIP(features, 1e-10)
        learn(blip)
    with pytest.warns(UnprotectedWarning, match=r"does not protect 1\.running_mean, 1\.running_var, which this task"):
        learn(blip)
    assert blip.tasks == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        norm.eval()
        learn(blip)
        norm.train()
        learn(BLIP(features, 1e-10, unprotected=["1"]))
    strict = BLIP(features, 1e-10, strict=True)
    learn(strict)
    with pytest.raises(ValueError, match="running_mean"):
        learn(strict)
    assert strict.tasks == 1, "nothing was changed"


def test_running_statistics_are_known_after_loading_and_those_of_before_are_not() -> None:
    features = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    fisher = {name: torch.full_like(p, 1e-3) for name, p in features.named_parameters()}
    first = BLIP(features, 1e-10, strict=True)
    features(torch.randn(30, 3))
    first.consolidate(fisher)
    saved = copy.deepcopy({"features": features.state_dict(), "blip": first.state_dict()})
    again = BLIP(features, 1e-10, strict=True)
    again.load_state_dict(saved["blip"])
    features(torch.randn(30, 3))
    with pytest.raises(ValueError, match="running_mean"):
        again.consolidate(fisher)
    features.load_state_dict(saved["features"])  # back to where the first task ended
    first.load_state_dict(saved["blip"])
    first.consolidate(fisher)
    assert first.tasks == 2
    with pytest.raises(ValueError, match="statistics: expected tensors by name"):
        first.load_state_dict(saved["blip"] | {"statistics": {"1.running_mean": 3}})


def test_what_spectral_norm_estimates_in_a_further_task_is_named() -> None:
    layer = spectral_norm(nn.Linear(4, 4))
    fisher = {name: torch.full_like(p, 1e-3) for name, p in layer.named_parameters()}
    blip = BLIP(layer, 1e-10, strict=True)
    blip.consolidate(fisher)
    layer.eval()(torch.randn(2, 4))
    blip.consolidate(fisher)
    layer.train()(torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"parametrizations\.weight\.0\._u"):
        blip.consolidate(fisher)


def test_parameters_that_no_optimizer_trains_are_named() -> None:
    backbone, top = nn.Linear(4, 4), nn.Linear(4, 3)
    features = nn.Sequential(backbone, nn.ReLU(), top)
    fisher = {name: torch.ones_like(p) for name, p in features.named_parameters()}  # enough to freeze bits
    before = backbone.weight.detach().clone()
    blip = BLIP(features, 1e-2, strict=True)
    blip.attach(SGD(top.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"quantises 0\.weight, 0\.bias, which no attached optimizer trains"):
        blip.consolidate(fisher)
    assert torch.equal(backbone.weight, before)
    blip.attach(SGD(backbone.parameters(), lr=0.1))
    blip.consolidate(fisher)
    assert not torch.equal(backbone.weight, before)


LEARN_IN_PARALLEL = """
import sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from blip import BLIP, diagonal_fisher
rank, average = int(sys.argv[1]), sys.argv[3] == "average"
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
torch.manual_seed(0)
features, head = nn.Linear(8, 16), nn.Linear(16, 3)
network = nn.Sequential(features, nn.ReLU(), head)
parallel, x, y = DistributedDataParallel(network), torch.randn(60, 8)[rank::2], torch.randint(0, 3, (60,))[rank::2]
blip, optimizer = BLIP(features, 1e-6), torch.optim.SGD(network.parameters(), lr=0.1)
blip.attach(optimizer)
for _ in range(2):
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(x), y).backward()
        optimizer.step()
    fisher = diagonal_fisher(features, network, [x])
    for value in fisher.values() if average else ():
        dist.all_reduce(value)
        value /= 2
    blip.consolidate(fisher)
print(int(sum(bits.sum() for bits in blip.bits.values())), features.weight.detach().sum().item())
"""


@pytest.mark.slow
@pytest.mark.parametrize("average", ["average", "apart"])
def test_processes_that_average_the_fisher_information_stay_one_network(average: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEARN_IN_PARALLEL]
    ranks = [
        subprocess.Popen([*command, str(r), str(tmp_path / "store"), average], stdout=subprocess.PIPE) for r in (0, 1)
    ]
    found = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert all(found)
    assert (found[0] == found[1]) == (average == "average")


def test_freezing_no_bit_at_all_is_said() -> None:
    features = nn.Linear(3, 4)
    nothing = {name: torch.full_like(p, 1e-9) for name, p in features.named_parameters()}
    with pytest.warns(
        UnprotectedWarning, match="freezes no bit of this task, so all parameters return to their"
    ) as said:
        BLIP(features, 1e-3).consolidate(nothing)
    assert said[0].filename == __file__
    nn.init.ones_(features.weight)
    strict = BLIP(features, 1e-3, strict=True)
    before = features.weight.detach().clone()
    with pytest.raises(ValueError, match="freezes no bit"):
        strict.consolidate(nothing)
    assert torch.equal(features.weight, before)
    assert strict.tasks == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = nothing | {"bias": torch.tensor([1.0, 0, 0, 0])}
        strict.consolidate(one)
        strict.consolidate(nothing)  # bits of earlier tasks stay


@pytest.mark.parametrize("changes", [{"f_prior": "1e-9"}, {"max_bits": 3.5}, {"weight_range": None}, {"max_bits": 25}])
def test_numbers_that_are_none_are_value_errors(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_bits"):
        BLIP(nn.Linear(2, 2), **({"f_prior": 1e-9} | changes))


def test_what_says_nothing_returns_to_where_it_says_nothing() -> None:
    """0 for weights and biases; 1 for norms, or the network would be cut there; its start for a parametrised weight."""
    features = nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.LayerNorm(4), nn.Linear(4, 2))
    started = {name: p.detach().clone() for name, p in features.named_parameters()}
    blip = BLIP(features, 1e-3)
    with torch.no_grad():
        for p in features.parameters():
            p.add_(0.1)
    blip.clamp_()
    fisher = {name: torch.full_like(p, 1e-9) for name, p in blip.parameters.items()}
    blip.consolidate(fisher)
    for name, p in features.named_parameters():
        expected = started[name] if "parametrizations" in name or name == "1.weight" else torch.zeros_like(p)
        assert torch.equal(p, expected), name
    assert features(torch.randn(2, 3)).isfinite().all()


def test_initial_values_of_embeddings_norms_and_padding() -> None:
    features = nn.Sequential(nn.Embedding(500, 40, padding_idx=7), nn.LayerNorm(40))
    BLIP(features, 1e-3).initialise_(torch.Generator().manual_seed(0))
    assert features[0].weight.std().item() == pytest.approx(1, rel=0.02)
    assert not features[0].weight[7].any()
    assert torch.equal(features[1].weight, torch.ones(40))


def products(task: int) -> tuple[Tensor, Tensor]:
    """Points, and whether the product of two coordinates is positive: two others in each task."""
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 2 * task] * x[:, 2 * task + 1] > 0).long()


def learn_two_tasks(seed: int, *, protect: bool) -> tuple[float, float, float]:
    """A loop of somebody else's; accuracy on the first task when learned, and on both at the end."""
    torch.manual_seed(seed)
    features = nn.Sequential(nn.Linear(6, 64), nn.ReLU())
    heads = [nn.Linear(64, 2), nn.Linear(64, 2)]
    blip = BLIP(features, f_prior=1e-7)
    accuracies = []
    for task, head in enumerate(heads):
        x, labels = products(task)
        optimizer = Adam([*features.parameters(), *head.parameters()], lr=0.02)
        if protect:
            blip.attach(optimizer)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(head(features(x)), labels).backward()
            optimizer.step()
        if protect:
            blip.consolidate(diagonal_fisher(features, lambda x, head=head: head(features(x)), x.split(100)))
        for t in range(task + 1):
            x, labels = products(t)
            accuracies.append(float((heads[t](features(x)).argmax(1) == labels).double().mean()))
    learned, remembered, new = accuracies
    return learned, remembered, new


@pytest.mark.parametrize("seed", [0, 1])
def test_in_a_foreign_loop_blip_forgets_clearly_less_and_still_learns(seed: int) -> None:
    learned, remembered, new = learn_two_tasks(seed, protect=True)
    assert learned > 0.95
    assert remembered > 0.95
    assert new > 0.8
    learned, remembered, _ = learn_two_tasks(seed, protect=False)
    assert learned > 0.95
    assert remembered < 0.8
