"""Shapes, sizes and modes of the networks."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from blip.errors import BlipError
from blip.networks import (
    AlexNetConfig,
    AnyNetworkConfig,
    Dropout,
    MLPConfig,
    MultiHeadNetwork,
    ResNet18Config,
    build_network,
)

PUBLISHED: dict[str, tuple[AnyNetworkConfig, tuple[int, int, int], int, int]] = {
    # network, images, width of the features, their parameters
    "mnist5, pmnist": (MLPConfig(name="mlp", hidden=[1200]), (1, 28, 28), 1200, 942_000),
    "cifar": (AlexNetConfig(name="alexnet", mul=2), (3, 32, 32), 2048, 9_218_944),
    "mixture5": (AlexNetConfig(name="alexnet", mul=0.8, hidden=(1638, 1638)), (3, 32, 32), 1638, 4_162_744),
    "miniimagenet_alexnet": (AlexNetConfig(name="alexnet", hidden=(2048, 512)), (3, 84, 84), 512, 27_416_256),
    # As torchvision's resnet18 (11,689,512) without its last layer (513,000) and batch-norm weights (9,600), and with
    # 3 × 3 instead of 7 × 7 taps in the first convolution (-7,680).
    "resnet18": (ResNet18Config(name="resnet18"), (3, 84, 84), 512, 11_159_232),
    "miniimagenet_resnet": (ResNet18Config(name="resnet18", mul=1.5), (3, 84, 84), 768, 25_106_976),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_size(name: str) -> None:
    settings, shape, width, parameters = PUBLISHED[name]
    with torch.device("meta"):
        network = build_network(settings, shape, [5, 2])
    assert sum(p.numel() for p in network.features.parameters()) == parameters
    assert [head.weight.shape for head in network.heads] == [(5, width), (2, width)]


@pytest.mark.parametrize("side", [12, 29, 31, 32, 33, 48, 84, 97])
@pytest.mark.parametrize("mul", [0.05, 0.8])
@pytest.mark.parametrize("kind", ["alexnet", "resnet18"])
def test_convolutional_networks_take_images_of_any_side(kind: str, mul: float, side: int) -> None:
    settings = (
        AlexNetConfig(name="alexnet", mul=mul, hidden=(7, 5))
        if kind == "alexnet"
        else ResNet18Config(name=kind, mul=mul)
    )
    with torch.device("meta"):
        network = build_network(settings, (3, side, side), [4, 3]).eval()
        assert network(torch.empty(2, 3, side, side), 1).shape == (2, 3)


@pytest.mark.parametrize("side", [1, 2, 5, 16])
def test_resnet18_takes_small_images_too(side: int) -> None:
    network = build_network(ResNet18Config(name="resnet18", mul=0.05), (1, side, side), [3])
    assert network(torch.rand(2, 1, side, side), 0).shape == (2, 3)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(BlipError, match="at least 12 pixels a side, found 11"):
        build_network(AlexNetConfig(name="alexnet"), (3, 11, 11), [2])
    with pytest.raises(ValidationError, match="mul"):
        ResNet18Config(name="resnet18", mul=0.01)
    with pytest.raises(BlipError, match=r"parameters and their gradients take .* GiB, this machine has"):
        build_network(MLPConfig(name="mlp", hidden=[2**30]), (3, 84, 84), [2])


def test_alexnet_rounds_its_widths_as_published() -> None:
    layers = build_network(AlexNetConfig(name="alexnet", mul=0.8), (3, 32, 32), [2]).features
    assert [m.out_channels for m in layers if isinstance(m, nn.Conv2d)] == [51, 102, 205]
    assert [m.kernel_size for m in layers if isinstance(m, nn.Conv2d)] == [(4, 4), (3, 3), (2, 2)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_relu_after_dropout_and_pooling_is_that_before_them(
    batch_norm: bool, memory_format: torch.memory_format
) -> None:
    """Bit by bit, in what the network computes and in its gradients; the paper's order is ReLU, dropout, pooling."""
    torch.manual_seed(0)
    settings = AlexNetConfig(name="alexnet", mul=0.2, hidden=(20, 20), dropout=(0.5,) * 5, batch_norm=batch_norm)
    network = build_network(settings, (3, 29, 29), [4])
    published = build_network(settings, (3, 29, 29), [4])
    published.load_state_dict(network.state_dict())
    layers = list(published.features)
    for place in [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]:
        layers.insert(place - 1, layers.pop(place + 1))
    assert [type(layer) for layer in layers if type(layer) in (nn.ReLU, Dropout, nn.MaxPool2d)] == [
        *(nn.ReLU, Dropout, nn.MaxPool2d) * 3,
        *(nn.ReLU, Dropout) * 2,
    ]
    published.features = nn.Sequential(*layers)
    images = torch.randn(8, 3, 29, 29).contiguous(memory_format=memory_format)
    losses = []
    for each in (network, published):
        torch.manual_seed(1)
        losses.append(F.cross_entropy(each(images, 0), torch.arange(8) % 4))
        losses[-1].backward()
    assert torch.equal(*losses)
    assert float(losses[0].detach()) > 0
    for ours, theirs in zip(network.parameters(), published.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.abs().max() > 0
        assert torch.equal(ours.grad, theirs.grad)


def test_dropout_is_set_layer_by_layer() -> None:
    settings = AlexNetConfig(name="alexnet", mul=0.1, hidden=(8, 8), dropout=(0.1, 0.2, 0.3, 0.4, 0.5))
    layers = build_network(settings, (3, 32, 32), [2]).features
    assert [m.p for m in layers if isinstance(m, nn.Dropout)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def resnet() -> MultiHeadNetwork:
    torch.manual_seed(0)
    return build_network(ResNet18Config(name="resnet18", mul=0.125), (3, 32, 32), [2, 2])


def statistics(network: MultiHeadNetwork) -> list[torch.Tensor]:
    return [buffer.clone() for name, buffer in network.named_buffers() if "running" in name]


def test_resnet18_has_no_affine_batch_norm_and_no_biases() -> None:
    names = [name for name, _ in resnet().features.named_parameters()]
    assert len(names) == 20
    assert all(name.endswith("weight") for name in names)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in resnet().modules()) == 20


def test_frozen_batch_norm_statistics_never_change_and_are_used_in_training() -> None:
    network, x = resnet(), torch.randn(8, 3, 32, 32)
    network.train()
    before = statistics(network)
    network(x, 0)
    learned = statistics(network)
    assert all(not torch.equal(a, b) for a, b in zip(before, learned, strict=True)), "the first task moves them"
    network.freeze_statistics()
    outputs = []
    for training in (True, False):
        network.train(training)
        assert network.training == network.features.training == training
        outputs.append(network(x + 3, 1))
    assert all(torch.equal(a, b) for a, b in zip(learned, statistics(network), strict=True))
    assert torch.equal(*outputs), "no statistics of the batch in training"


def test_logits_of_mixed_tasks_are_those_of_each_rows_own_head() -> None:
    torch.manual_seed(0)
    network = build_network(MLPConfig(name="mlp", hidden=[6]), (1, 3, 3), [2, 4, 3, 2])
    x, tasks = torch.randn(9, 1, 3, 3), torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 1])
    labels = torch.tensor([2, 1, 3, 0, 0, 1, 0, 1, 2])
    logits = network.logits_of(network.features(x), tasks)
    assert logits.shape == (9, 4)
    for row, task in enumerate(tasks.tolist()):
        own = network(x, task)[row]
        assert torch.equal(logits[row, : len(own)], own)
        assert torch.isneginf(logits[row, len(own) :]).all()
    F.cross_entropy(logits, labels).backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    sums = [F.cross_entropy(network(x[tasks == t], t), labels[tasks == t], reduction="sum") for t in range(3)]
    (torch.stack(sums).sum() / len(x)).backward()
    for gradient, parameter in zip(gradients, network.parameters(), strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_and_scales_the_rest(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(30, 7, 31, 33, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    for p in (0.2, 0.5):
        y = Dropout(p)(x)
        assert y.is_contiguous(memory_format=memory_format)
        assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.005)
        assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p), dtype=dtype))}
        kept = (y != 0).float()
        for dim in range(4):  # no pattern along any of them
            assert ((kept.mean(dim=[d for d in range(4) if d != dim]) - (1 - p)).abs() < 0.03).all()
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, y.detach())
    assert torch.equal(Dropout(0.2).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_dropout_is_drawn_from_the_global_generator() -> None:
    x, drops = torch.ones(3, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drops.append(Dropout(0.5)(x))
    assert torch.equal(drops[0], drops[1])
    assert not torch.equal(drops[0], drops[2])


def test_a_network_of_ones_own_needs_features_alone() -> None:
    class Mine:
        def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
            return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], 3)), 3

    network = build_network(Mine(), (1, 2, 2), [2, 2])  # type: ignore[arg-type]
    assert network.heads[0].bias is not None


def test_numbers_that_a_method_adds_to_the_network_itself_are_shared() -> None:
    network = MultiHeadNetwork(nn.Linear(4, 3), 3, [2, 2])
    before, by_task = network.numbers()
    network.scale = nn.Parameter(torch.ones(5))
    assert network.numbers() == (before + 5, by_task)
    assert "scale" not in network.parameters_of(0)


def test_statistics_are_measured_as_the_means_of_batches() -> None:
    features = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 5), nn.BatchNorm1d(5))
    network = MultiHeadNetwork(features, 5, [2, 2])
    batches = [torch.randn(6, 3) * (i + 1) for i in range(3)]
    network.measure_statistics(iter(batches))
    assert not network.training
    assert features[1].momentum == 0.1
    inner = [features[0](x) for x in batches]
    torch.testing.assert_close(features[1].running_mean, torch.stack([y.mean(0) for y in inner]).mean(0))
    torch.testing.assert_close(features[1].running_var, torch.stack([y.var(0) for y in inner]).mean(0))
    before = features[4].running_mean.clone()
    with network.normalised_by({"4.running_mean": torch.ones(5)}):
        assert features[4].running_mean.tolist() == [1] * 5
    assert torch.equal(features[4].running_mean, before)
