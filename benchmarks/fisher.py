"""Fisher information of the MLP 784-1200 (80 batches of 100): time, memory, and BLIP's state per parameter.

And of the convolutional networks, one batch: time and extra memory against a forward and backward pass of it.

Targets: less time than one training epoch of an mnist5 task; extra memory ≤ 2 × the parameters plus one batch;
≤ 17 bytes of state a parameter, the same after ten tasks as after one; for convolutions ≤ 3 × forward and backward.
"""

import resource
import sys
from functools import partial

import timing
import torch
import torch.nn.functional as F

from blip import BLIP, diagonal_fisher
from blip.networks import AlexNetConfig, AnyNetworkConfig, MLPConfig, MultiHeadNetwork, ResNet18Config, build_network

PAIRS = 7
EXAMPLES, BATCH = 12_000, 64  # one epoch of an mnist5 task
BATCHES, N = 80, 100


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def state_bytes(blip: BLIP) -> float:
    """Bytes of tensors in BLIP's state for each parameter."""

    def size(value: object) -> int:
        if isinstance(value, torch.Tensor):
            return value.nbytes
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return sum(map(size, children))

    return size(blip.state_dict()) / sum(p.numel() for p in blip.parameters.values())


CONVOLUTIONS: dict[str, tuple[AnyNetworkConfig, tuple[int, int, int], int]] = {
    "cifar": (AlexNetConfig(name="alexnet", mul=2), (3, 32, 32), 100),
    "mixture5": (AlexNetConfig(name="alexnet", mul=0.8, hidden=(1638, 1638)), (3, 32, 32), 100),
    "miniimagenet_alexnet": (AlexNetConfig(name="alexnet", hidden=(2048, 512)), (3, 84, 84), 10),
    "miniimagenet_resnet": (ResNet18Config(name="resnet18", mul=1.5), (3, 84, 84), 10),
}


def convolutions() -> None:
    """Time of the networks' Fisher estimates, each batch of the published size."""
    for name, (settings, shape, n) in CONVOLUTIONS.items():
        network = build_network(settings, shape, [10]).eval()
        x, labels = torch.randn(n, *shape), torch.randint(0, 10, (n,))

        def fisher(network: MultiHeadNetwork = network, x: torch.Tensor = x) -> None:
            diagonal_fisher(network.features, lambda batch: network(batch, 0), [x], loss_batch_size=len(x))

        def backward(network: MultiHeadNetwork = network, x: torch.Tensor = x, labels: torch.Tensor = labels) -> None:
            network.zero_grad()
            F.cross_entropy(network(x, 0), labels).backward()

        ratio = timing.paired_ratio(fisher, backward, PAIRS, 1)
        timing.report(f"Fisher / forward and backward, {name}, batch {n}", ratio, 3.0, PAIRS)


if __name__ == "__main__":
    timing.main()
    network = build_network(MLPConfig(name="mlp", hidden=[1200]), (1, 28, 28), [2])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    blip = BLIP(network.features, 1e-15)
    blip.attach(optimizer)
    x, labels = torch.randn(EXAMPLES, 1, 28, 28), torch.randint(0, 2, (EXAMPLES,))

    def epoch() -> None:
        for inputs, targets in zip(x.split(BATCH), labels.split(BATCH), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs, 0), targets).backward()
            optimizer.step()

    def fisher(network: MultiHeadNetwork = network, batch: int = N) -> dict[str, torch.Tensor]:
        inputs = x[: BATCHES * N].split(batch)
        return diagonal_fisher(network.features, lambda batch: network(batch, 0), inputs, loss_batch_size=N)

    def backward_only() -> None:
        for inputs, targets in zip(x[: BATCHES * N].split(N), labels[: BATCHES * N].split(N), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs, 0), targets).backward()

    # What the libraries load at their first use, code pages too, is there before memory is counted.
    fisher(build_network(MLPConfig(name="mlp", hidden=[2]), (1, 28, 28), [2]))
    before = peak_memory()
    information = fisher()
    extra = peak_memory() - before
    parameters = sum(p.nbytes for p in blip.parameters.values())
    allowed = 2 * parameters + x[:N].nbytes
    what = "Fisher: extra memory in MiB (allowed: 2 × the parameters and one batch)"
    timing.row(what, f"{extra / 2**20:.1f}", extra <= allowed, round(allowed / 2**20, 1))

    blip.consolidate(information)
    states = [state_bytes(blip)]
    for _ in range(9):
        blip.consolidate({name: torch.rand_like(p) * 1e-9 for name, p in blip.parameters.items()})
    states.append(state_bytes(blip))
    measured = f"{states[0]:.1f} after one task, {states[1]:.1f} after ten"
    timing.row("state: bytes a parameter", measured, max(states) <= 17, 17)

    timing.report("Fisher / training epoch", timing.paired_ratio(fisher, epoch, PAIRS, 1), 1.0, PAIRS)
    ratio = timing.paired_ratio(fisher, backward_only, PAIRS, 1)
    timing.report("Fisher / forward and backward of the same batches", ratio, 3.0, PAIRS)
    ratio = timing.paired_ratio(partial(fisher, batch=500), fisher, PAIRS, 1)
    timing.report("Fisher in batches of 500 / of N = 100, with the same result", ratio, 1.0, PAIRS)
    convolutions()
