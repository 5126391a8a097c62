"""On a CUDA device: `make test-gpu`."""

from pathlib import Path

import pytest
import torch
from test_image_training import Killed, make_trainer
from torch import nn

from blip import BLIP, diagonal_fisher
from blip.methods import METHODS
from blip.training.checkpoint import to_bytes

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


CONVOLUTIONS = """\
name: convolutions
data:
  sources: [{name: digits, classes_per_task: 5, pad_to: 16, channels: 3}]
  validation: 0.2
network: {name: NETWORK, mul: 0.1}
training: {lr: 0.05, batch_size: 32, epochs: 4, lr_patience: 1}
methods:
  blip: {f_prior: 1e-13, fisher_batch_size: 10, fisher_batches: 20}
  sgd: {}
  sgd-frozen: {}
  ewc: {strength: 10}
  lwf: {}
  imm-mode: {}
  single-task: {}
  joint: {}
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["alexnet", "resnet18"])
def test_graphs_and_eager_training_give_the_same_numbers(network: str, method: str, tmp_path: Path) -> None:
    """With dropout, batch-norm, new learning rates, and a last batch that is smaller."""
    torch.backends.cudnn.deterministic = True
    path = tmp_path / "convolutions.yaml"
    path.write_text(CONVOLUTIONS.replace("NETWORK", network))
    graphed, eager = (
        make_trainer(path, method, tmp_path / str(graphs), device=CUDA, cuda_graphs=graphs) for graphs in (True, False)
    )
    assert graphed.cuda_graphs
    assert not eager.cuda_graphs
    for trainer in (graphed, eager):
        trainer.run(f"{network} {method}")
    for one, other in zip(graphed.tables["history"], eager.tables["history"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    weights = eager.network.state_dict()
    for name, value in graphed.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6, msg=name)


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


@pytest.mark.parametrize("method", ["blip", "ewc", "sgd", "sgd-frozen", "single-task"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_and_eager_updates_of_games_give_the_same_numbers(precision: str, method: str, tmp_path: Path) -> None:
    """Each update from the same rollout; whole runs would part, since actions are drawn by what was learned."""
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    torch.backends.cudnn.deterministic = True
    path = tmp_path / "quick.yaml"
    path.write_text(games.QUICK)
    trained = []
    for graphs in (True, False):
        experiment = games.load_experiment(path, {"ppo.steps": 32, "ppo.epochs": 4, "ppo.precision": precision})
        inputs = experiment.inputs(0, tmp_path, tmp_path, CUDA)
        trainer = games.GameTrainer(experiment, method, 0, inputs, games.Checkpoint(tmp_path / str(graphs)), CUDA)
        trainer.cuda_graphs = graphs
        trainer.run("test")
        trained.append(trainer)
    graphed, eager = trained
    for one, other in zip(graphed.tables["updates"], eager.tables["updates"], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)
    weights = eager.network.state_dict()
    for name, value in graphed.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-5, msg=name)
