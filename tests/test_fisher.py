"""The Fisher information against brute force: each sample alone, autograd on the parameters themselves."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from blip import diagonal_fisher
from blip.core import per_sample
from blip.core.fisher import _weighted_labels, batch_gradient_fisher
from blip.core.layers import covered_layers, layer_parameters

SAMPLES, CLASSES = 5, 3


class Twice(nn.Module):
    """One layer, called twice, the second time on its own output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(torch.tanh(self.layer(x)))
        return result


class Tied(nn.Module):
    """Two layers with one weight, and a bias each."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.tanh(self.first(x)))
        return result


class SideBranch(nn.Module):
    """A layer whose output nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.idle = nn.Linear(4, 3), nn.Linear(4, 3), nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        result: Tensor = self.used(x)
        return result


def convolutions() -> Iterable[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """Over kernel, stride, padding, padding modes, dilation and groups, in one, two and three dimensions."""
    options: dict[str, dict[str, object]] = {
        "plain": {},
        "stride": {"stride": 2},
        "padding": {"padding": 2},
        "same": {"padding": "same", "kernel_size": 2},
        "valid": {"padding": "valid"},
        "circular": {"padding": 1, "padding_mode": "circular"},
        "reflect": {"padding": 2, "padding_mode": "reflect"},
        "replicate": {"padding": 1, "padding_mode": "replicate"},
        "dilation": {"dilation": 2},
        "groups": {"groups": 2},
        "depthwise": {"groups": 4, "bias": False},
        "all": {"stride": 2, "padding": 2, "dilation": 2, "groups": 2, "padding_mode": "circular", "bias": False},
    }
    sizes = {nn.Conv1d: (7,), nn.Conv2d: (6, 5), nn.Conv3d: (5, 5, 5)}
    for kind, size in sizes.items():
        for name, option in options.items():
            arguments = {"kernel_size": 3, **option}
            yield f"{kind.__name__}-{name}", lambda kind=kind, a=arguments: kind(4, 4, **a), (4, *size)  # type: ignore[misc]
    uneven = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)}
    yield "Conv2d-uneven", lambda: nn.Conv2d(2, 3, **uneven), (2, 6, 5)  # type: ignore[arg-type]


def transposed() -> Iterable[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    options: dict[str, dict[str, object]] = {
        "plain": {},
        "stride": {"stride": 2, "output_padding": 1},
        "padding": {"padding": 1, "bias": False},
        "dilation": {"dilation": 3, "output_padding": 2},
        "all": {"stride": 2, "padding": 2, "dilation": 3, "groups": 2, "output_padding": 2},
    }
    kinds = {nn.ConvTranspose1d: (4,), nn.ConvTranspose2d: (4, 3), nn.ConvTranspose3d: (2, 3, 2)}
    for kind, size in kinds.items():
        for name, option in options.items():
            yield f"{kind.__name__}-{name}", lambda k=kind, o=option: k(4, 6, 2, **o), (4, *size)  # type: ignore[misc]


def random_parameters(module: nn.Module) -> nn.Module:
    """So that no gradient is right by chance, as with a norm's weights of 1; statistics of batch-norms too."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.5)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and not name.endswith(("_u", "_v")):
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module


class Language(nn.Module):
    """Words, some of them padding or twice in a sentence; the decoder's weights may be the embedding's."""

    def __init__(self, *, tied: bool = False, padding: int | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3, padding_idx=padding)
        self.decoder = nn.Linear(3, 5)
        if tied:
            self.decoder.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        words = (x.abs() * 3).long() % 5
        result: Tensor = self.decoder(torch.tanh(self.words(words)))
        return result


NORMED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (4,)),
    "BatchNorm1d-positions": (lambda: nn.BatchNorm1d(4), (4, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2), (2, 3, 3)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(2), (2, 2, 3, 2)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (3, 4)),
    "LayerNorm-two": (lambda: nn.LayerNorm((3, 4)), (2, 3, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (3, 4)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3, affine=True), (3, 4)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 4, 2)),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 3, 2, 2)),
    "norms between": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.GroupNorm(2, 4)),
        (2, 4, 4),
    ),
    "norm twice": (lambda: Twice(nn.LayerNorm(4)), (3, 4)),
    "embedding": (Language, (6,)),
    "embedding-padding": (lambda: Language(padding=2), (6,)),
    "embedding-tied": (lambda: Language(tied=True, padding=1), (2, 3)),
    "ConvTranspose twice": (lambda: Twice(nn.ConvTranspose1d(3, 3, 3, padding=1)), (3, 5)),
    "weight_norm": (lambda: nn.Sequential(weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)), (3, 4)),
    "weight_norm convolution": (lambda: weight_norm(nn.Conv1d(2, 3, 2)), (2, 4)),
    "weight_norm twice": (lambda: Twice(weight_norm(nn.Linear(4, 4))), (4,)),
    "spectral_norm": (lambda: spectral_norm(nn.Linear(4, 3)), (4,)),
}
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "sequence": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (6, 4)),
    "positions": (lambda: nn.Linear(4, 3, bias=False), (2, 3, 4)),
    "in-place": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 5), nn.ReLU(inplace=True)
        ),
        (2, 4, 4),
    ),
    "batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU()), (2, 3, 3)),
    "linear twice": (lambda: Twice(nn.Linear(4, 4)), (4,)),
    "sequence twice": (lambda: Twice(nn.Linear(4, 4)), (3, 4)),
    "convolution twice": (lambda: Twice(nn.Conv1d(3, 3, 3, padding=1)), (3, 5)),
    "tied linear": (lambda: Tied(nn.Linear(4, 4), nn.Linear(4, 4)), (4,)),
    "tied convolutions": (lambda: Tied(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, padding=1, bias=False)), (2, 5, 5)),
    "unused": (SideBranch, (4,)),
    **{name: (build, shape) for name, build, shape in (*convolutions(), *transposed())},
    **{name: (lambda build=build: random_parameters(build()), shape) for name, (build, shape) in NORMED.items()},  # type: ignore[misc]
}


class Network:
    """Features of a case with random weights, a random linear head behind them, and random samples."""

    def __init__(self, build: Callable[[], nn.Module], shape: tuple[int, ...], samples: int = SAMPLES) -> None:
        torch.manual_seed(0)
        self.features = build().double()
        self.x = torch.randn(samples, *shape, dtype=torch.float64)
        self.labels = torch.arange(samples) % CLASSES
        self.features.eval()
        width = self.features(self.x[:1]).numel()
        self.head = torch.randn(width, CLASSES, dtype=torch.float64)
        self.features.train()

    def __call__(self, x: Tensor) -> Tensor:
        return self.features(x).flatten(1) @ self.head

    def fisher(self, size: int = SAMPLES, **options: Any) -> dict[str, Tensor]:
        batches = zip(self.x.split(size), self.labels.split(size), strict=True)
        return diagonal_fisher(self.features, self, batches, **options)

    def brute_force(self) -> dict[str, Tensor]:
        """Mean over samples of the squared gradient, by the definition."""
        parameters = {n: p for n, p in self.features.named_parameters() if n in layer_parameters(self.features)}
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.features.eval()
        for x, label in zip(self.x, self.labels, strict=True):
            loss = F.cross_entropy(self(x[None]), label[None])
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += 0 if gradient is None else gradient**2 / len(self.x)
        self.features.train()
        return total


def close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-14, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("chunk", [per_sample.CHUNK_ELEMENTS, 1], ids=["whole", "chunks"])
@pytest.mark.parametrize("case", CASES)
def test_fisher_is_the_mean_squared_gradient_sample_by_sample(
    case: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_sample, "CHUNK_ELEMENTS", chunk)
    network = Network(*CASES[case])
    expected = network.brute_force()
    assert any(value.any() for value in expected.values())
    close(network.fisher(), expected)


def test_layers_that_do_not_reach_the_loss_get_zeros() -> None:
    fisher = Network(*CASES["unused"]).fisher()
    assert fisher["used.weight"].any()
    for name in ("unused.weight", "unused.bias", "idle.weight", "idle.bias"):
        assert not fisher[name].any()


def test_frozen_layers_are_left_out_and_the_others_get_what_they_had() -> None:
    network = Network(*CASES["in-place"])
    before = network.fisher()
    network.features[0].requires_grad_(False)  # type: ignore[index]
    close(network.fisher(), {name: value for name, value in before.items() if name.startswith("3.")})


@pytest.mark.parametrize("also_called", [False, True])
def test_weights_used_without_calling_their_layer_are_refused(also_called: bool) -> None:
    """Zeros, or a part of the gradient, would be wrong, and BLIP would then reset or move the weights."""
    features = nn.Linear(3, 3)

    def logits(x: Tensor) -> Tensor:
        return F.linear(features(x) if also_called else x, features.weight)

    with pytest.raises(ValueError, match="weight is used without calling its layer"):
        diagonal_fisher(features, logits, [torch.randn(5, 3)])
    assert all(p.requires_grad for p in features.parameters())


class Scaled(nn.Linear):
    """A linear layer whose forward is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def test_layers_whose_forward_is_not_theirs_are_refused_unless_left_out() -> None:
    features = nn.Sequential(Scaled(4, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"0 \(Scaled\)"):
        diagonal_fisher(features, features, [torch.randn(5, 4)])
    fisher = diagonal_fisher(features, features, [torch.randn(5, 4)], unprotected=["0"])
    assert fisher.keys() == {"1.weight", "1.bias"}
    features[1].forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"1 \(Linear\)"):
        diagonal_fisher(features, features, [torch.randn(5, 4)], unprotected=["0"])


def test_batch_norm_over_the_batch_is_refused() -> None:
    features = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False, track_running_stats=False))
    with pytest.raises(ValueError, match="1 has no running statistics"):
        diagonal_fisher(features, features, [torch.randn(5, 4)])


def test_a_hook_that_changes_the_output_changes_no_layers_own_gradient() -> None:
    network = Network(*CASES["linear"])
    network.features.register_forward_hook(lambda layer, inputs, output: 3 * output)
    close(network.fisher(), network.brute_force())


def test_recomputed_activations_give_the_same() -> None:
    network = Network(*CASES["in-place"])
    expected = network.fisher()
    plain = network.features.forward
    network.features.forward = lambda x: checkpoint(plain, x, use_reentrant=False)  # type: ignore[method-assign]
    close(network.fisher(), expected)
    close(estimate(network, labels="exact"), expectation(network))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (nn.Linear(3, 2), {"loss_batch_size": 0}, "loss_batch_size"),
        (nn.Linear(3, 2), {"labels": "exact", "max_classes": 0}, "max_classes"),
        (nn.Linear(3, 2).requires_grad_(False), {}, "no parameter that trains"),
        (nn.PReLU(), {}, "no parameter that trains"),
        (nn.Linear(3, 2), {"unprotected": ["typo"]}, "no parameter or module named typo"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(features: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagonal_fisher(features, features, [torch.randn(4, 3)], **options)


def test_no_batches_and_a_network_without_the_features_are_refused() -> None:
    features = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="at least one sample"):
        diagonal_fisher(features, features, [])
    with pytest.raises(ValueError, match="depends on no layer"):
        diagonal_fisher(features, lambda x: x, [torch.randn(4, 3)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_that_of_full_precision(dtype: torch.dtype) -> None:
    network = Network(*CASES["in-place"])
    network.features, network.head, network.x = network.features.float(), network.head.float(), network.x.float()
    expected = network.fisher()
    with torch.autocast("cpu", dtype):
        close(network.fisher(), expected)

    def cast_inside(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return network(x)

    rough = diagonal_fisher(network.features, cast_inside, [(network.x, network.labels)])
    for name, value in expected.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], value, rtol=0.1, atol=0.05 * float(value.max()))


@pytest.mark.parametrize("case", ["linear", "sequence", "in-place", "Conv3d-all", "tied linear"])
@pytest.mark.parametrize("size", [1, 2, SAMPLES])
def test_the_size_of_the_batches_makes_no_difference(case: str, size: int) -> None:
    network = Network(*CASES[case])
    close(network.fisher(size), network.fisher(SAMPLES))


@pytest.mark.parametrize("loss_batch_size", [2, 10, 64])
def test_the_batch_size_of_the_loss_scales_by_its_inverse_square(loss_batch_size: int) -> None:
    network = Network(*CASES["in-place"])
    scaled = {name: value / loss_batch_size**2 for name, value in network.fisher().items()}
    close(network.fisher(loss_batch_size=loss_batch_size), scaled)


def expectation(network: Network) -> dict[str, Tensor]:
    """Σ_y p(y) (∂ log p(y) / ∂θ)², the mean over samples, by the definition."""
    parameters = {name: covered.parameter for name, covered in layer_parameters(network.features).items()}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    network.features.eval()
    for x in network.x:
        log_p = F.log_softmax(network(x[None]), 1)[0]
        for probability, one in zip(log_p.exp().tolist(), log_p, strict=True):
            gradients = torch.autograd.grad(one, list(parameters.values()), retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += probability * gradient**2 / len(network.x)
    network.features.train()
    return total


def estimate(network: Network, seed: int = 0, repeat: int = 1, **options: Any) -> dict[str, Tensor]:
    """With labels of the network's own prediction."""
    batch = network.x.repeat(repeat, *[1] * (network.x.dim() - 1))
    draws = torch.Generator().manual_seed(seed)
    return diagonal_fisher(network.features, network, [batch], generator=draws, **options)


@pytest.mark.parametrize("case", ["linear", "sequence", "in-place", "batch norm", "Conv3d-all", "tied linear"])
@pytest.mark.parametrize("max_classes", [10, CLASSES, CLASSES - 1])
def test_exact_labels_give_the_expectation_over_the_networks_prediction(case: str, max_classes: int) -> None:
    """With one class left, there is nothing to sample among the others."""
    network = Network(*CASES[case])
    close(estimate(network, labels="exact", max_classes=max_classes), expectation(network))


@pytest.mark.parametrize("options", [{}, {"labels": "exact", "max_classes": 1}], ids=["sampled", "at most one"])
def test_sampled_labels_average_to_the_expectation(options: dict[str, Any]) -> None:
    network = Network(*CASES["linear"], samples=2)
    network.head *= 0.5
    probabilities = F.softmax(network(network.x), 1).detach().sort(1).values
    assert probabilities[:, -2].min() > 0.02, "or all draws are the same"
    drawn, exact = estimate(network, repeat=20_000, **options), estimate(network, labels="exact")
    for name, value in exact.items():
        torch.testing.assert_close(drawn[name], value, rtol=0.05, atol=0.01 * float(value.max()))
    close(exact, expectation(network))


def test_the_more_classes_are_exact_the_less_the_draw_matters() -> None:
    network = Network(*CASES["linear"], samples=2)
    spreads = []
    for options in ({}, {"labels": "exact", "max_classes": 1}, {"labels": "exact"}):
        draws = torch.stack([estimate(network, seed, **options)["weight"] for seed in range(100)])
        spreads.append(float(draws.std(0).sum()))
    assert spreads[0] > spreads[1] > spreads[2] == 0


def test_a_prediction_without_doubt_has_labels_to_sample_all_the_same() -> None:
    certain = torch.tensor([[300.0, 0.0, 0.0, 0.0]])  # the others' probabilities are 0 in float32
    (first, one), (other, rest) = _weighted_labels(certain, 1, torch.Generator().manual_seed(0))
    assert (int(first), float(one), float(rest)) == (0, 1, 0)
    assert int(other) in (1, 2, 3)


def test_given_labels_are_used_as_they_are() -> None:
    network = Network(*CASES["sequence"])
    close(network.fisher(labels="exact"), network.fisher())


def test_a_loader_of_labelled_examples_gives_pairs() -> None:
    """Which PyTorch collates into lists."""
    features, x, labels = nn.Linear(4, 3).double(), torch.randn(20, 4).double(), torch.arange(20) % 3
    loader = DataLoader(TensorDataset(x, labels), batch_size=5)
    close(diagonal_fisher(features, features, loader), diagonal_fisher(features, features, [(x, labels)]))


def test_sampled_labels_follow_the_generator() -> None:
    network = Network(*CASES["linear"], samples=50)
    first, again, other = (
        diagonal_fisher(network.features, network, [network.x], generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    close(first, again)
    assert not torch.equal(first["weight"], other["weight"])


def test_dropout_is_off_and_batch_norm_and_training_flags_are_left_alone() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    features[2].eval()  # frozen statistics, as after the first task
    statistics = {name: value.clone() for name, value in features[2].state_dict().items()}
    flags = [module.training for module in features.modules()]
    x, labels = torch.randn(20, 4), torch.arange(20) % 3
    first, second = (diagonal_fisher(features, features, [(x, labels)]) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(dict(features[2].state_dict()), statistics, rtol=0, atol=0)
    assert [module.training for module in features.modules()] == flags
    assert all(p.grad is None for p in features.parameters())
    assert not any(layer._forward_hooks for layer in covered_layers(features).values())


def test_training_flags_and_hooks_are_restored_after_an_error() -> None:
    features = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    with pytest.raises(RuntimeError, match="shapes"):
        diagonal_fisher(features, features, [torch.randn(2, 5)])
    assert all(module.training for module in features.modules())
    assert not features[0]._forward_hooks


def test_it_works_where_gradients_are_switched_off() -> None:
    network = Network(*CASES["linear"])
    expected = network.fisher()
    with torch.no_grad():
        close(network.fisher(), expected)


@pytest.mark.parametrize("reshape", [lambda x: x.transpose(0, 1), lambda x: x.flatten(0, 1)], ids=["time", "merged"])
def test_a_layer_whose_first_dimension_is_not_the_batch_is_refused(reshape: Callable[[Tensor], Tensor]) -> None:
    layer = nn.Linear(4, 3)

    def logits(x: Tensor) -> Tensor:
        output: Tensor = layer(reshape(x)).sum().expand(len(x), 2) * torch.tensor([1.0, 2.0])
        return output

    with pytest.raises(ValueError, match="expected the batch of 5 first"):
        diagonal_fisher(layer, logits, [torch.randn(5, 6, 4)])


def test_a_first_dimension_that_is_as_long_as_the_batch_by_chance_is_refused() -> None:
    """Positions of as many steps as there are samples: their squares were those of sums over samples."""
    position, word = nn.Embedding(6, 3), nn.Embedding(9, 3)
    features = nn.ModuleList([position, word])

    def logits(x: Tensor) -> Tensor:
        output: Tensor = (word(x) + position(torch.arange(x.shape[1]))).mean(1)
        return output

    for samples in (6, 5):
        with pytest.raises(
            ValueError, match=r"Embedding\(6, 3\): input of shape \(6,\), expected the batch of \d first"
        ):
            diagonal_fisher(features, logits, [torch.randint(0, 9, (samples, 6))])
    found = diagonal_fisher(features, logits, [torch.randint(0, 9, (6, 6))], unprotected=["0"])
    assert set(found) == {"1.weight"}


def test_a_layer_that_nothing_is_made_of_may_have_any_input() -> None:
    layer, unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def logits(x: Tensor) -> Tensor:
        unused(torch.zeros(6, 4))
        output: Tensor = layer(x)
        return output

    found = diagonal_fisher(nn.ModuleList([layer, unused]), logits, [torch.randn(6, 4)])
    assert found["0.weight"].any()
    assert not found["1.weight"].any()


def test_samples_are_counted_by_what_the_network_answers() -> None:
    """A mapping of two inputs, or two side by side, are not two samples."""
    torch.manual_seed(0)
    layer, x, labels = nn.Linear(4, 3), torch.randn(50, 4), torch.randint(0, 3, (50,))
    expected = diagonal_fisher(layer, layer, [(x, labels)])
    by_name = diagonal_fisher(layer, lambda batch: layer(batch["x"]), [({"x": x, "mask": x}, labels)])
    side_by_side = diagonal_fisher(layer, lambda batch: layer(batch[0]), [((x, x), labels)])
    torch.testing.assert_close([by_name, side_by_side], [expected] * 2)


def test_batches_of_inputs_alone_may_come_as_a_loader_gives_them() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3), torch.randn(12, 4)
    alone = diagonal_fisher(layer, layer, DataLoader(TensorDataset(x), batch_size=5), labels="exact")
    torch.testing.assert_close(alone, diagonal_fisher(layer, layer, x.split(5), labels="exact"))
    with pytest.raises(ValueError, match="expected inputs, or pairs of inputs and labels, found 3 parts"):
        diagonal_fisher(layer, layer, [(x, x, x)])


@pytest.mark.parametrize(
    "answer", [lambda y: {"logits": y}, lambda y: y[:, :1], lambda y: y[:, 0], lambda y: y[..., None].expand(-1, -1, 2)]
)
def test_answers_that_are_no_logits_are_refused(answer: Callable[[Tensor], Any]) -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="logits: expected a tensor"):
        diagonal_fisher(layer, lambda x: answer(layer(x)), [torch.randn(5, 4)])


def test_a_misspelled_kind_of_labels_is_refused() -> None:
    layer: Any = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="labels: expected 'sampled' or 'exact', found 'Exact'"):
        diagonal_fisher(layer, layer, [torch.randn(5, 4)], labels="Exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_features_have_the_same_fisher_information(in_place: bool) -> None:
    torch.manual_seed(0)
    features, head, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Linear(5, 3), torch.randn(6, 4)
    expected = diagonal_fisher(features, lambda x: head(features(x)), [x], labels="exact")
    compiled: Any = features
    if in_place:
        features.compile(backend="aot_eager")
    else:
        compiled = torch.compile(features, backend="aot_eager")
    head(compiled(x)).sum().backward()  # a graph is there, which no later hook is seen in
    found = diagonal_fisher(features, lambda x: head(compiled(x)), [x], labels="exact")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation inside returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_a_linear_layer_needs_no_gradients_per_sample() -> None:
    layer = nn.Linear(30, 40)
    samples = 100
    with LargestTensor() as largest:
        diagonal_fisher(layer, layer, [torch.randn(samples, 30)])
    assert 0 < largest.elements <= samples * 40


def test_a_convolution_keeps_to_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    x = torch.randn(64, 3, 6, 6)
    taps, positions = 27, 16
    elements = 8 * taps + taps * positions
    monkeypatch.setattr(per_sample, "CHUNK_ELEMENTS", 4 * elements)
    with LargestTensor() as largest:
        diagonal_fisher(features, features, [x])
    assert largest.elements <= max(4 * elements, 64 * 8 * positions)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 3), nn.Linear(3, 2))


def test_batch_gradient_fisher_is_the_mean_square_of_batch_gradients_dropout_on() -> None:
    network = two_layers()
    x, labels = torch.randn(10, 4), torch.arange(10) % 3
    batches = list(zip(x.split(4), labels.split(4), strict=True))

    def logits(x: Tensor) -> Tensor:
        output: Tensor = network[:4](x)  # the last layer does not reach the loss
        return output

    torch.manual_seed(1)
    fisher = batch_gradient_fisher(network, logits, batches)
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    torch.manual_seed(1)
    for inputs, targets in batches:
        network.zero_grad()
        F.cross_entropy(logits(inputs), targets).backward()
        for name, p in network.named_parameters():
            expected[name] += 0 if p.grad is None else 20 * p.grad**2 / 3  # as published
    torch.testing.assert_close(fisher, expected)
    assert fisher["0.weight"].any()
    assert not fisher["4.weight"].any()


def test_batch_gradient_fisher_of_a_frozen_parameter_is_zero() -> None:
    network = two_layers()
    network[0].weight.requires_grad_(False)
    fisher = batch_gradient_fisher(network, network, [(torch.randn(6, 4), torch.arange(6) % 2)])
    assert not fisher["0.weight"].any()
    assert fisher["0.bias"].any()
    assert fisher.keys() == dict(network.named_parameters()).keys()
