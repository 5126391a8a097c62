"""What this machine has of what the project can use, on one screen."""

import os
import platform
import subprocess
from importlib import metadata

import torch

OPTIONAL = {
    "games": ("ale-py", "gymnasium", "stable-baselines3"),
    "workflow": ("snakemake",),
    "download and check of raw data": ("torchvision",),
    "Stable-Baselines3's own wrappers": ("opencv-python-headless",),
}


def report() -> str:
    """The screen: a name and what was found on each line. Asks the devices and changes nothing."""
    rows = [
        ("blip-continual", _version("blip-continual")),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("PyTorch", str(torch.__version__)),
        ("CUDA", _cuda()),
        *_gpus(),
        ("CPU", f"{_cpus()} to use, PyTorch's threads {torch.get_num_threads()}"),
        *((purpose, ", ".join(f"{name} {_version(name)}" for name in names)) for purpose, names in OPTIONAL.items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    if torch.version.cuda is None:
        return "this PyTorch was built without it"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    return f"{torch.version.cuda}, cuDNN {cudnn or 'not loaded'}, driver {_driver()}"


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "not found"


def _gpus() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("GPU", "none: training runs on the CPU, steps are not recorded")]
    rows = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        rows.append((f"GPU {index}", f"{about.name}, {memory}, compute capability {about.major}.{about.minor}"))
    return [*rows, ("training there", "steps are recorded as CUDA graphs (--eager: not)")]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
