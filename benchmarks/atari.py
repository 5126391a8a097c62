"""Atari: agent steps against Stable-Baselines3's own, in one run.

* environments: ale-py's, each game stepped alone, against DummyVecEnv and the chain of wrappers; target ≥ 1 ×;
* PPO: 16 environments × 125 steps and an update, the published network, against Stable-Baselines3's default PPO with
  SubprocVecEnv; target ≥ 2.3 × with bfloat16 where the CPU has it, ≥ 1.5 × without;
* where there is a CUDA device, the same there, with and without recorded updates.

On the CPU per second of the process and its children, since others share the machine; on a CUDA device by the clock.
Without OpenCV, which Stable-Baselines3's wrappers need, Pillow's resizing stands in for it.
"""

import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ale_py
import gymnasium
import numpy as np
import psutil
import timing
import torch
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from blip.games.actor_critic import ActorCriticNetwork, AtariNetworkConfig
from blip.games.atari import NativeAtari
from blip.games.policy import GamePolicy
from blip.games.ppo import PublishedPPO
from blip.training.products import DEFAULT, computed_by

GAME, COUNT, STEPS = "Boxing", 16, 125


def pillow() -> SimpleNamespace:
    """What SB3's wrappers call of OpenCV."""
    return SimpleNamespace(
        cvtColor=lambda frame, _: np.asarray(Image.fromarray(frame).convert("L")),
        resize=lambda frame, size, interpolation: np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)),
        COLOR_RGB2GRAY=0,
        INTER_AREA=0,
    )


def cpu_seconds() -> float:
    """Of this process and its children, with their threads."""
    process = psutil.Process()
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def rate(work: Callable[[], object], steps: int, clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return steps / (clock() - start)


def compare(
    what: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    steps: int,
    n: int,
    target: float,
    clock: Callable[[], float] = cpu_seconds,
) -> None:
    """One row: the median ratio of rates over `n` pairs in alternating order."""
    ratios, rates = [], []
    for i in range(n):
        pair = {}
        for work in (ours, other) if i % 2 else (other, ours):
            pair[work] = rate(work, steps, clock)
        ratios.append(pair[ours] / pair[other])
        rates.append((pair[ours], pair[other]))
    mine, theirs = (statistics.median(r[k] for r in rates) for k in (0, 1))
    unit = "CPU second" if clock is cpu_seconds else "second"
    found = statistics.median(ratios), min(ratios), max(ratios)
    timing.report(f"{what}: {mine:.0f} against {theirs:.0f} steps a {unit}", found, target, n, at_least=True)


def random_steps(environments: VecEnv, steps: int) -> Callable[[], None]:
    random = np.random.default_rng(0)
    environments.reset()

    def work() -> None:
        for _ in range(steps):
            environments.step(random.integers(0, 18, COUNT))

    return work


def ours(low_precision: bool, device: str = "cpu", *, cuda_graphs: bool = False) -> Callable[[], object]:
    """One rollout and one update at a time."""
    network = ActorCriticNetwork(*AtariNetworkConfig().features((4, 84, 84)), [18]).to(device)
    ppo = PublishedPPO(
        GamePolicy,
        NativeAtari(GAME, COUNT, threads=torch.get_num_threads()),
        n_steps=STEPS,
        batch_size=COUNT * STEPS // 8,
        n_epochs=4,
        policy_kwargs={
            "network": network,
            "task": 0,
            "low_precision": low_precision,
            "optimizer_kwargs": {"eps": 1e-5, "fused": True, "capturable": cuda_graphs},
        },
        device=device,
    )
    ppo.cuda_graphs = cuda_graphs
    ppo.begin(10**9)

    def work() -> None:
        ppo.collect()
        ppo.train()

    return work


def wrapped(**how: Any) -> VecEnv:
    """The same games by Stable-Baselines3's chain of wrappers, one after another where not told otherwise."""
    return VecTransposeImage(VecFrameStack(make_atari_env(f"{GAME}NoFrameskip-v4", COUNT, **how), 4))


def theirs(device: str = "cpu") -> Callable[[], object]:
    """Stable-Baselines3's own PPO with the same network."""
    network = ActorCriticNetwork(*AtariNetworkConfig().features((4, 84, 84)), [18]).to(device)
    ppo = PPO(
        GamePolicy,
        wrapped(vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        n_steps=STEPS,
        batch_size=COUNT * STEPS // 8,
        n_epochs=4,
        policy_kwargs={"network": network, "task": 0},
        device=device,
    )

    def work() -> None:
        with computed_by(DEFAULT):  # as it is without us
            ppo.learn(COUNT * STEPS, reset_num_timesteps=False)

    return work


def main() -> None:
    timing.main()
    gymnasium.register_envs(ale_py)
    if atari_wrappers.cv2 is None:
        print("OpenCV is not installed: Pillow's resizing stands in for it in SB3's wrappers")
        atari_wrappers.cv2 = pillow()
    n = 3 if "--short" in sys.argv else 7
    native, chain = NativeAtari(GAME, COUNT), wrapped()
    works = random_steps(native, STEPS), random_steps(chain, STEPS)
    compare("Boxing, environments / DummyVecEnv and wrappers", *works, COUNT * STEPS, n, 1.0)
    other = theirs()
    other()
    for low_precision, target in ((False, 1.5), (True, 2.3)):
        mine = ours(low_precision)
        mine()
        name = f"PPO, {'bfloat16' if low_precision else 'float32'} / Stable-Baselines3's in float32"
        compare(name, mine, other, COUNT * STEPS, n, target)
    if not torch.cuda.is_available():
        print("no CUDA device: PPO was measured on the CPU alone")
        return
    print(torch.cuda.get_device_name())
    other = theirs("cuda")
    other()
    for low_precision, graphs in ((False, False), (False, True), (True, True)):
        mine = ours(low_precision, "cuda", cuda_graphs=graphs)
        mine()
        name = f"PPO on CUDA, {'bfloat16' if low_precision else 'float32'}, {'graphs' if graphs else 'eager'}"
        compare(name, mine, other, COUNT * STEPS, n, 1.0, time.perf_counter)


if __name__ == "__main__":
    main()
