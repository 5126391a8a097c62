"""A training step with BLIP against the same step with plain SGD: target ≤ 1.10 × (MLP), ≤ 1.05 × (AlexNet-like).

Twice for each network: in the first task, where every parameter of a tensor has one range, and after a consolidation,
where each has its own.
"""

import timing
import torch
import torch.nn.functional as F

from blip import BLIP
from blip.networks import AlexNetConfig, AnyNetworkConfig, MLPConfig, build_network

PAIRS = 31


def step_times(name: str, settings: AnyNetworkConfig, shape: tuple[int, ...], batch: int, target: float) -> None:
    x, labels = torch.randn(batch, *shape), torch.randint(0, 2, (batch,))
    functions = {}
    for kind in ("sgd", "blip"):
        torch.manual_seed(0)
        network = build_network(settings, shape, [2])
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        if kind == "blip":
            blip = BLIP(network.features, 1e-15)
            blip.attach(optimizer)

        def step(network=network, optimizer=optimizer) -> None:  # type: ignore[no-untyped-def]
            optimizer.zero_grad()
            F.cross_entropy(network(x, 0), labels).backward()
            optimizer.step()

        functions[kind] = step
    calls = 20 if settings.name == "mlp" else 5
    ratio = timing.paired_ratio(functions["blip"], functions["sgd"], PAIRS, calls)
    timing.report(f"{name}, first task", ratio, target, PAIRS)
    blip.consolidate({key: torch.rand_like(p) * 1e-9 for key, p in blip.parameters.items()})
    ratio = timing.paired_ratio(functions["blip"], functions["sgd"], PAIRS, calls)
    timing.report(f"{name}, later tasks", ratio, target, PAIRS)


if __name__ == "__main__":
    timing.main()
    step_times("MLP 784-1200, batch 64", MLPConfig(name="mlp", hidden=[1200]), (1, 28, 28), 64, 1.10)
    step_times("AlexNet-like 32×32, batch 32", AlexNetConfig(name="alexnet"), (3, 32, 32), 32, 1.05)
