"""On a CUDA device: `make test-gpu`. With BLIP_GPU_STAND_IN set, on a CPU with a stand-in for CUDA graphs."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from stand_in_cuda import stand_in_cuda
from test_image_training import Killed, make_trainer
from torch import Tensor, nn

from blip import BLIP, diagonal_fisher
from blip.cli import main
from blip.core import formulas
from blip.devices import pick_device, tensor_float_32
from blip.images.image_trainer import TrainingConfig
from blip.methods import METHODS
from blip.training.checkpoint import to_bytes
from blip.training.descent import GradientDescent

STAND_IN = bool(os.environ.get("BLIP_GPU_STAND_IN"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or STAND_IN), reason="there is no CUDA device"),
]
_PRECISION = TrainingConfig.model_fields.get("precision")
PRECISIONS = get_args(_PRECISION.annotation) if _PRECISION else ("float32",)
GAME_METHODS = [name for name, method in METHODS.items() if not method.supervised]


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The CUDA device as a run has it, or the CPU that stands in."""
    if STAND_IN:
        with stand_in_cuda():
            yield torch.device("cpu")
        return
    found = pick_device("cuda")
    with tensor_float_32(found, False):
        yield found


# The method


def network_and_batch(device: torch.device) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(245, 8))
    head = nn.Linear(8, 4)
    x, labels = torch.randn(20, 3, 9, 9), torch.randint(0, 4, (20,))
    return features.to(device), head.to(device), (x.to(device), labels.to(device))


def test_fisher_is_that_of_the_cpu(device: torch.device) -> None:
    results = []
    for where in (torch.device("cpu"), device):
        features, head, batch = network_and_batch(where)
        results.append(diagonal_fisher(features, lambda x, f=features, h=head: h(f(x)), [batch]))
    cpu, gpu = results
    for name, value in cpu.items():
        torch.testing.assert_close(gpu[name].cpu(), value, rtol=1e-3, atol=1e-4 * float(value.max()))


def test_sampled_labels_are_drawn_on_the_device(device: torch.device) -> None:
    features, head, (x, _) = network_and_batch(device)
    draws = [
        diagonal_fisher(features, lambda x: head(features(x)), [x], generator=torch.Generator(device).manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])
    assert not all(torch.equal(draws[0][name], draws[2][name]) for name in draws[0])


def test_consolidation_is_that_of_the_cpu(device: torch.device) -> None:
    """From the same weights and Fisher information: the same bits, and bytes of weights and ranges, but for a
    logarithm that is rounded otherwise just where the next bit begins."""
    blips = []
    for where in (torch.device("cpu"), device):
        torch.manual_seed(0)
        features = nn.Linear(400, 500)
        blip = BLIP(features.to(where), 1e-9)
        random = torch.Generator().manual_seed(0)
        for _ in range(3):
            fisher = {n: torch.rand(p.shape, generator=random) ** 8 * 1e-2 for n, p in blip.parameters.items()}
            blip.consolidate({name: value.to(where) for name, value in fisher.items()})
        blips.append(blip)
    cpu, gpu = blips
    for name, bits in cpu.bits.items():
        same = gpu.bits[name].cpu() == bits
        assert float(same.float().mean()) > 0.999
        assert 0 < float(bits.float().mean()) < 20
        assert torch.equal(gpu.parameters[name].detach().cpu()[same], cpu.parameters[name].detach()[same])
        for ours, theirs in zip(gpu._ranges[name], cpu._ranges[name], strict=True):
            assert torch.equal(ours.cpu()[same], theirs[same])


def test_quantisation_gives_the_bytes_of_the_cpu(device: torch.device) -> None:
    random = torch.Generator().manual_seed(0)
    for bound in (0.123, 6 / 28, 1.0):
        value = (2 * torch.rand(100_000, generator=random) - 1) * bound
        bits = torch.randint(0, 25, value.shape, generator=random).to(torch.uint8)
        quantised = formulas.quantise(value.to(device), bits.to(device), bound)
        assert torch.equal(quantised.cpu(), formulas.quantise(value, bits, bound))


# Images

IMAGES = """\
name: images
data:
  sources: [{name: digits, classes_per_task: 5, pad_to: 16, channels: 3}]
  validation: 0.2
network: NETWORK
training: {lr: 0.05, batch_size: 32, epochs: 4, lr_patience: 1}
methods: METHODS
"""
SETTINGS: dict[str, dict[str, Any]] = {
    "blip": {"f_prior": 1e-13, "fisher_batch_size": 10, "fisher_batches": 20},
    "ewc": {"strength": 10},
    "hat": {"s_max": 50, "strength": 0.05},
    "packnet": {"retrain_epochs": 1},
}
"""Of methods whose defaults are not for such small runs; every registered method is tested."""
NETWORKS = {
    "mlp": "{name: mlp, hidden: [32]}",
    "alexnet": "{name: alexnet, mul: 0.1, hidden: [32, 32]}",
    "resnet18": "{name: resnet18, mul: 0.125}",
}


def image_trainer(
    network: str,
    method: str,
    folder: Path,
    name: str,
    device: torch.device,
    *,
    graphs: bool = True,
    precision: str = "",
) -> Any:
    path = folder / "images.yaml"
    methods = json.dumps({name: SETTINGS.get(name, {}) for name in METHODS})
    path.write_text(IMAGES.replace("NETWORK", NETWORKS[network]).replace("METHODS", methods))
    more = {"training__precision": precision} if _PRECISION and precision else {}
    trainer = make_trainer(path, method, folder / name, device=device, **more)
    assert trainer.cuda_graphs == (device.type == "cuda")
    trainer.cuda_graphs = graphs
    return trainer


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_graphs_and_eager_training_give_the_same_bytes(
    network: str, method: str, precision: str, tmp_path: Path, device: torch.device
) -> None:
    """With dropout, batch-norm, new learning rates, and a last batch that is smaller."""
    graphed, eager = (
        image_trainer(network, method, tmp_path, str(graphs), device, graphs=graphs, precision=precision)
        for graphs in (True, False)
    )
    with tensor_float_32(device, precision == "tf32"):
        for trainer in (graphed, eager):
            trainer.run(f"{network} {method}")
    assert graphed.tables["history"] == eager.tables["history"]
    weights = eager.network.state_dict()
    apart = {name: float((v - weights[name]).abs().max()) for name, v in graphed.network.state_dict().items()}
    assert not any(apart.values()), f"largest differences: {apart}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["alexnet", "resnet18"])
def test_a_run_stopped_on_the_device_ends_with_the_same_bytes(
    network: str, method: str, tmp_path: Path, device: torch.device
) -> None:
    whole = image_trainer(network, method, tmp_path, "whole", device)
    whole.run("whole")
    stopped = image_trainer(network, method, tmp_path, "stopped", device)
    save, saves = stopped._save, []

    def save_and_die(*arguments: object) -> None:
        save(*arguments)
        saves.append(1)
        if len(saves) == 6:  # in the second task
            raise Killed

    stopped._save = save_and_die
    with pytest.raises(Killed):
        stopped.run("stopped")
    resumed = image_trainer(network, method, tmp_path, "stopped", device)
    resumed.run("resumed")
    assert to_bytes(resumed.network.state_dict()) == to_bytes(whole.network.state_dict())
    assert resumed.tables["accuracy"] == whole.tables["accuracy"]


@pytest.mark.parametrize("method", METHODS)
def test_steps_never_wait_for_the_device(method: str, tmp_path: Path, device: torch.device) -> None:
    """CUDA's own check, which raises where the host waits; eager and recorded steps of a second task."""
    trainer = image_trainer("alexnet", method, tmp_path, "c", device)
    trainer.method.before_task(0)
    trainer.method.after_task(0, trainer.sequence.task(0).train)
    trainer.task = 1
    trainer.method.before_task(1)
    train = trainer.sequence.task(1).train
    for graphs in (False, True):
        trainer.cuda_graphs = graphs
        step = trainer._step(GradientDescent(trainer.method.trained_parameters(), 0.1), train)
        batches = train.indices(32)
        for index in batches[:5]:
            step(index)
        try:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            for index in batches[5:9]:
                step(index)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(STAND_IN, reason="a CPU has no such memory")
def test_recordings_do_not_pile_up(tmp_path: Path, device: torch.device) -> None:
    """A run records once for each task: a hundred times, maybe."""
    trainer = image_trainer("resnet18", "blip", tmp_path, "c", device)
    train = trainer.sequence.task(0).train
    index = train.indices(32)[0]
    reserved = []
    for _ in range(12):
        step = trainer._step(GradientDescent(trainer.method.trained_parameters(), 0.1), train)
        for _ in range(6):
            step(index)
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= 1.1 * reserved[2], reserved


def test_a_whole_run_from_the_command_line(tiny: Path, tmp_path: Path, device: torch.device) -> None:
    folders = ["--data", tmp_path / "d", "--out", tmp_path / "runs", "--checkpoints", tmp_path / "c"]
    assert main(["train", str(tiny), "--method", "blip", "sgd", *map(str, folders)]) == 0
    for method in ("blip", "sgd"):
        assert (tmp_path / "runs" / "tiny" / method / "seed0" / "accuracy.csv").exists()


# Games


def game_trainer(
    method: str, folder: Path, name: str, device: torch.device, *, graphs: bool = True, **changes: Any
) -> Any:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("ale_py")
    import test_games_training as games

    path = folder / "quick.yaml"
    path.write_text(games.QUICK)
    experiment = games.load_experiment(path, {f"ppo.{key}": value for key, value in changes.items()})
    inputs, checkpoint = experiment.inputs(0, folder, folder, device), games.Checkpoint(folder / name)
    trainer = experiment.trainer(method, 0, inputs, checkpoint, device)
    trainer.seconds_between_checkpoints = 0
    assert trainer.cuda_graphs == (device.type == "cuda")
    trainer.cuda_graphs = graphs
    return trainer


@pytest.mark.parametrize("method", GAME_METHODS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_and_eager_updates_of_games_give_the_same_bytes(
    precision: str, method: str, tmp_path: Path, device: torch.device
) -> None:
    """Whole runs of three updates a game, in which actions are drawn by what was learned."""
    graphed, eager = (
        game_trainer(method, tmp_path, str(graphs), device, graphs=graphs, steps=96, epochs=3, precision=precision)
        for graphs in (True, False)
    )
    for trainer in (graphed, eager):
        trainer.run("test")
    assert [repr(row) for row in graphed.tables["updates"]] == [repr(row) for row in eager.tables["updates"]]
    assert to_bytes(graphed.network.state_dict()) == to_bytes(eager.network.state_dict())


@pytest.mark.parametrize("method", GAME_METHODS)
def test_a_run_on_games_stopped_on_the_device_ends_with_the_same_bytes(
    method: str, tmp_path: Path, device: torch.device
) -> None:
    whole = game_trainer(method, tmp_path, "whole", device, steps=192)
    whole.run("whole")
    stopped = game_trainer(method, tmp_path, "stopped", device, steps=192)
    save, saves = stopped._save, []

    def save_and_die(*arguments: object) -> None:
        save(*arguments)
        saves.append(1)
        if len(saves) == 4:  # in the second game, after updates of it
            raise Killed

    stopped._save = save_and_die
    with pytest.raises(Killed):
        stopped.run("stopped")
    resumed = game_trainer(method, tmp_path, "stopped", device, steps=192)
    resumed.run("resumed")
    assert to_bytes(resumed.network.state_dict()) == to_bytes(whole.network.state_dict())


@pytest.mark.skipif(STAND_IN, reason="a CPU has no such memory")
def test_a_learned_game_gives_its_memory_back(tmp_path: Path, device: torch.device) -> None:
    trainer = game_trainer("sgd", tmp_path, "c", device, steps=32)
    held = []
    finish = trainer._finish_task

    def finish_and_measure(*arguments: Any) -> None:
        finish(*arguments)
        gc.collect()
        held.append(torch.cuda.memory_allocated())

    trainer._finish_task = finish_and_measure
    trainer.run("test")
    assert held[1] <= 1.2 * held[0], held
