"""Steps on images: speed of training steps, what they wait for, the Fisher information, runs that share the device."""

import copy
import gc
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import EXPERIMENTS, Row, Setting, in_turn, median, peak_mib, ratios, row, stand_ins
from overhead import RandomSequence
from torch.profiler import ProfilerActivity, profile

from blip import diagonal_fisher
from blip.config import load_experiment
from blip.devices import pick_device, tensor_float_32
from blip.methods import METHODS
from blip.training.checkpoint import Checkpoint
from blip.training.descent import GradientDescent

SMALL_MLP, SMALL_ALEXNET = {"network.hidden": [32]}, {"network.mul": 0.1, "network.hidden": [32, 32]}
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int, int], int, dict[str, Any]]] = {
    "mlp, batch 32": ("mnist5", {"training.batch_size": 32}, (1, 28, 28), 2, SMALL_MLP),
    "mnist5": ("mnist5", {}, (1, 28, 28), 2, SMALL_MLP),
    "cifar": ("cifar", {}, (3, 32, 32), 20, SMALL_ALEXNET),
    "mixture5": ("mixture5", {}, (3, 32, 32), 10, SMALL_ALEXNET),
    "miniimagenet_alexnet": ("miniimagenet_alexnet", {}, (3, 84, 84), 5, SMALL_ALEXNET),
    "miniimagenet_resnet": ("miniimagenet_resnet", {}, (3, 84, 84), 5, {"network.mul": 0.1}),
}
"""Experiment, changes, shape of its images, classes of a task, changes when quick. Images are random."""
TRAIN = 2560


class Steps:
    """Training steps of one method, as a run makes them."""

    def __init__(self, case: str, method: str, setting: Setting, *, graphs: bool, later: bool = False) -> None:
        name, changes, shape, classes, small = CASES[case]
        if setting.quick:
            changes = changes | small | {"methods.blip.fisher_batches": 2}
        experiment: Any = load_experiment(EXPERIMENTS / f"{name}.yaml", changes)
        examples = 128 if setting.quick else TRAIN
        sequence: Any = RandomSequence(shape=shape, tasks=3, classes=classes, train=examples, test=500)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder))
            self.trainer = experiment.trainer(method, 0, sequence.to(setting.device), checkpoint, setting.device)
        self.trainer.cuda_graphs = graphs
        self.train = sequence.task(0).train
        if later:
            self.trainer.method.before_task(0)
            self.trainer.method.after_task(0, self.train)
            self.trainer.task = 1
            self.trainer.method.before_task(1)
        descent = GradientDescent(self.trainer.method.trained_parameters(), experiment.training.lr)
        self.step = self.trainer._step(descent, self.train)
        size = experiment.training.batch_size
        self.batches = [index for index in self.train.indices(size) if len(index) == size]
        self.trainer.network.train()
        self(8)  # recorded by then

    def __call__(self, steps: int) -> None:
        for i in range(steps):
            self.step(self.batches[i % len(self.batches)])


def bare_loop(steps: Steps) -> Callable[[int], None]:
    """The same network in PyTorch alone, on batches that are normalised already."""
    batches = [steps.train.batch(index) for index in steps.batches[:20]]
    network = copy.deepcopy(steps.trainer.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

    def run(count: int) -> None:
        for i in range(count):
            x, labels = batches[i % len(batches)]
            loss = F.cross_entropy(network(x, 0), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    run(5)
    return run


def speed(setting: Setting) -> Iterator[Row]:
    """Training steps a second, and what graphs and BLIP's clamp change about them."""
    for case in CASES:
        if setting.left() < 10:
            yield row(f"{case}: left out", "no time")
            continue
        gc.collect()
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        blip = Steps(case, "blip", setting, graphs=True)
        yield from ({**found, "what": f"{case}, blip, graphs: {found['what']}"} for found in peak_mib(setting))
        eager = Steps(case, "sgd", setting, graphs=False)
        works: dict[str, Callable[[int], None]] = {
            "bare PyTorch": bare_loop(eager),
            "sgd, eager": eager,
            "blip, eager": Steps(case, "blip", setting, graphs=False),
            "sgd, graphs": Steps(case, "sgd", setting, graphs=True),
            "blip, graphs": blip,
            "blip, graphs, later tasks": Steps(case, "blip", setting, graphs=True, later=True),
        }
        count = (
            2 if setting.quick else max(5, min(500, round(0.2 / setting.seconds(lambda w=works: w["bare PyTorch"](1)))))
        )
        taken = in_turn({name: partial(work, count) for name, work in works.items()}, setting)
        for name, seconds in taken.items():
            yield median(f"{case}, {name}", [count / s for s in seconds], "steps/s")
        target = {"target": "≥ 5"} if case == "mlp, batch 32" else {}
        yield median(f"{case}: graphs / eager, sgd", ratios(taken, "sgd, eager", "sgd, graphs"), "×", **target)
        for name in ("blip, graphs", "blip, graphs, later tasks"):
            yield median(
                f"{case}: time of {name} / sgd, graphs", ratios(taken, name, "sgd, graphs"), "×", target="≤ 1.05"
            )
        yield median(f"{case}: time of sgd, eager / bare", ratios(taken, "sgd, eager", "bare PyTorch"), "×")


WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Pageable")


def counted(work: Callable[[], object], setting: Setting) -> Counter[str]:
    """How often the profiler saw each event."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        work()
        setting.sync()
    return Counter(event.name for event in profiler.events() or [])


def waits_of(work: Callable[[int], object], setting: Setting) -> dict[str, float]:
    """Of one unit of `work`, whatever the profiler itself adds: waits, copies of pageable memory, launches."""
    once, thrice = counted(lambda: work(1), setting), counted(lambda: work(3), setting)
    names = set(thrice) | set(once)

    def each(*parts: str) -> float:
        return sum(thrice[n] - once[n] for n in names if any(part in n for part in parts)) / 2

    return {"waits": each(*WAITS), "launches": each("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")}


def waits(setting: Setting) -> Iterator[Row]:
    """What a step waits for, by the profiler: nothing."""
    few = ("blip", "ewc", "lwf")
    cases = ("mlp, batch 32", "cifar") if setting.quick else ("mlp, batch 32", "cifar", "miniimagenet_resnet")
    works = [(case, m) for case in cases for m in few]
    works += [("mlp, batch 32", m) for m in METHODS if m not in few]
    for case, method in works:
        if setting.left() < 5:
            yield row(f"{case}, {method}: left out", "no time")
            continue
        for graphs in (False, True):
            steps = Steps(case, method, setting, graphs=graphs, later=True)
            found = waits_of(steps, setting)
            name = f"{case}, {method}, {'graphs' if graphs else 'eager'}"
            yield row(f"{name}: waits and copies of pageable memory a step", found["waits"], target="≤ 0")
            yield row(f"{name}: launches a step", found["launches"])


def fisher(setting: Setting) -> Iterator[Row]:
    """The Fisher information of a batch against its forward and backward pass, and of a whole task."""
    for case in list(CASES)[1:]:
        steps = Steps(case, "blip", setting, graphs=False)
        trainer: Any = steps.trainer
        network, settings = trainer.network.eval(), trainer.method.settings
        size = 8 if setting.quick else settings.fisher_batch_size
        x, labels = steps.train.batch(torch.arange(size, device=setting.device))

        def estimate(network: Any = network, x: Any = x) -> object:
            return diagonal_fisher(network.features, lambda batch: network(batch, 0), [x], loss_batch_size=len(x))

        def backward(network: Any = network, x: Any = x, labels: Any = labels) -> None:
            network.zero_grad()
            F.cross_entropy(network(x, 0), labels).backward()

        for work in (estimate, backward) * 2:
            work()
        if setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken = in_turn({"Fisher": estimate, "backward": backward}, setting)
        yield median(f"{case}: Fisher / forward and backward", ratios(taken, "Fisher", "backward"), "×", target="≤ 3")
        whole = [settings.fisher_batches * seconds for seconds in taken["Fisher"]]
        yield median(f"{case}: Fisher of a task, {settings.fisher_batches} batches of {size}", whole, "s")
        yield from ({**found, "what": f"{case}: {found['what']}"} for found in peak_mib(setting))


def _share(
    rank: int, counts: list[int], case: str, setting: Setting, seconds: float, barrier: Any, results: Any
) -> None:
    """One of several processes: steps as many as it can while it is among those that run."""
    torch.set_num_threads(1)
    pick_device(str(setting.device))  # as a run of its own would: deterministic, and no TF32
    with stand_ins(setting.device), tensor_float_32(setting.device, False):
        steps = Steps(case, "blip", setting, graphs=True)
        for count in counts:
            barrier.wait(120)
            done, end = 0, time.perf_counter() + seconds
            while rank < count and time.perf_counter() < end:
                steps(20)
                setting.sync()
                done += 20
            if rank < count:
                results.put((count, done / seconds))


def sharing(setting: Setting) -> Iterator[Row]:
    """Steps a second of 1, 2, 4 and 8 runs on the device together, against one."""
    context = multiprocessing.get_context("spawn")
    counts = [1, 2] if setting.quick else [1, 2, 4, 8]
    for case in ("mnist5", "cifar"):
        if setting.left() < 20:
            yield row(f"{case}: left out", "no time")
            continue
        barrier, results = context.Barrier(max(counts)), context.Queue()
        seconds = 0.05 if setting.quick else 2.0
        arguments = (counts, case, setting, seconds, barrier, results)
        processes = [context.Process(target=_share, args=(rank, *arguments)) for rank in range(max(counts))]
        for process in processes:
            process.start()
        found = [results.get(timeout=120) for _ in range(sum(counts))]
        for process in processes:
            process.join(30)
        together = {count: sum(speed for c, speed in found if c == count) for count in counts}
        for count in counts:
            yield row(f"{case}, {count} runs together", together[count], "steps/s")
            yield row(f"{case}, {count} runs together / one", together[count] / together[1], "×")
