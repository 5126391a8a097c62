"""On a CUDA device: training steps per second of the eager loop, of CUDA graphs, and of a bare PyTorch loop.

Then several runs that share the device, against one. AlexNet-like network, 32×32 images, mul 1, batch 32. Without a
device it says so and measures nothing.
"""

import multiprocessing
import time

import timing
import torch
from training import loop_and_bare

SECONDS, PAIRS = 5.0, 15
STEPS = 400


def steps_per_second(method: str, start: float) -> float:
    """Of a run of its own, from `start` on, for SECONDS."""
    loop, _ = loop_and_bare(method, torch.device("cuda"), cuda_graphs=True, steps=STEPS)
    loop()
    time.sleep(max(0.0, start - time.time()))
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        loop()
        done += STEPS
    return done / (time.perf_counter() - begin)


def shared(runs: int) -> float:
    """Steps per second of so many runs together."""
    with multiprocessing.get_context("spawn").Pool(runs) as pool:
        return sum(pool.starmap(steps_per_second, [("blip", time.time() + 30)] * runs))


if __name__ == "__main__":
    timing.main()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing is measured")
        raise SystemExit
    print(torch.cuda.get_device_name())
    device = torch.device("cuda")
    for method in ("sgd", "blip"):
        for graphs in (False, True):
            loop, bare = loop_and_bare(method, device, cuda_graphs=graphs, steps=STEPS)
            ratio = timing.paired_ratio(loop, bare, PAIRS, 1, time.perf_counter)
            begin = time.perf_counter()
            loop()
            speed = STEPS / (time.perf_counter() - begin)
            what = f"{method}, {'graphs' if graphs else 'eager'}: step / bare PyTorch ({speed:.0f} steps/s)"
            timing.report(what, ratio, 1.05, PAIRS)
    one = shared(1)
    for runs in (2, 4, 8):
        print(f"{runs} runs on one device: {shared(runs) / one:.2f} × the steps per second of one ({one:.0f})")
