"""On a CUDA device: `make test-gpu`."""

from pathlib import Path

import pytest
import torch
from test_training import Killed, make_trainer
from torch import nn

from blip import BLIP, diagonal_fisher
from blip.checkpoint import to_bytes
from blip.methods import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CUDA = torch.device("cuda")


def test_fisher_and_consolidation_are_those_of_the_cpu() -> None:
    results = []
    x, labels = torch.randn(20, 3, 9, 9), torch.randint(0, 4, (20,))
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(245, 8)).to(device)
        head = nn.Linear(8, 4).to(device)
        blip = BLIP(features, 1e-9)
        batch = (x.to(device), labels.to(device))
        fisher = diagonal_fisher(features, lambda x, f=features, h=head: h(f(x)), [batch])
        blip.consolidate(fisher)
        results.append((fisher, blip.capacity()))
    (cpu, cpu_capacity), (cuda, cuda_capacity) = results
    for name, value in cpu.items():
        torch.testing.assert_close(cuda[name].cpu(), value, rtol=1e-3, atol=1e-4 * float(value.max()))
    assert cuda_capacity == pytest.approx(cpu_capacity, rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_on_the_device_ends_with_the_same_bytes(method: str, tiny: Path, tmp_path: Path) -> None:
    whole = make_trainer(tiny, method, tmp_path / "whole", device=CUDA)
    whole.run("whole")
    stopped = make_trainer(tiny, method, tmp_path / "stopped", device=CUDA)
    save, saves = stopped._save, []

    def save_and_die(*arguments: object) -> None:
        save(*arguments)
        saves.append(1)
        if len(saves) == 4:
            raise Killed

    stopped._save = save_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        stopped.run("stopped")
    resumed = make_trainer(tiny, method, tmp_path / "stopped", device=CUDA)
    resumed.run("resumed")
    assert to_bytes(resumed.network.state_dict()) == to_bytes(whole.network.state_dict())
    assert resumed.tables["accuracy"] == whole.tables["accuracy"]
