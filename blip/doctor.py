"""What this machine has of what the project can use, and what would run here, on one screen."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from textwrap import wrap

import torch

from blip.config import kind_of, load_experiment, published
from blip.data import is_present
from blip.devices import processor, processor_name
from blip.schema import read_yaml
from blip.training.products import AUTO, ONEDNN, SMALLEST_PRODUCT, choose

OPTIONAL = {
    "games": ("ale-py", "gymnasium", "stable-baselines3"),
    "workflow": ("snakemake",),
    "page, RO-Crate": ("vl-convert-python", "rocrate"),
    "download of raw data": ("torchvision",),
}
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
"""Those that products and bfloat16 are fast by."""
CONTAINERS = ("apptainer", "singularity", "docker", "podman")
WIDTH = 118
Rows = list[tuple[str, str]]


def report(raw: Path) -> str:
    """The screen: a name and what was found on each line. Asks the devices and changes nothing.

    `raw` is the folder in which raw data are looked for.
    """
    system = f"{platform.system()} {platform.machine()}"
    rows: Rows = [
        ("blip-continual", f"{_version('blip-continual')}, Python {platform.python_version()}, {system}"),
        ("PyTorch", f"{torch.__version__}; CUDA {_cuda()}"),
        *_gpus(),
        *_cpu(),
        *((purpose, ", ".join(f"{name} {_version(name)}" for name in names)) for purpose, names in OPTIONAL.items()),
        ("containers", _containers()),
        ("SLURM", _answer("sbatch", "--version") or "not here"),
        *_data(raw),
    ]
    width = min(WIDTH // 2, max(len(name) for name, _ in rows))
    lines = []
    for name, value in rows:
        first, *more = wrap(value, WIDTH - width - 2)
        lines += [f"{name:{width}}  {first}", *(f"{'':{width}}  {line}" for line in more)]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _answer(*command: str) -> str:
    """The first line that a program prints; empty where there is none."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return run.stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def _containers() -> str:
    """What can run the image; Docker's command alone runs nothing."""
    found = [name for name in CONTAINERS if shutil.which(name)]
    silent = "docker" in found and not _answer("docker", "version", "--format", "{{.Server.Version}}")
    shown = [f"{name} (no daemon answers)" if name == "docker" and silent else name for name in found]
    return ", ".join(shown) or f"none of {', '.join(CONTAINERS)}"


def _cuda() -> str:
    if torch.version.cuda is None:
        return "not in this build"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    driver = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "not found"
    return f"{torch.version.cuda}, cuDNN {cudnn or 'not loaded'}, driver {driver}"


def _gpus() -> Rows:
    if not torch.cuda.is_available():
        return [("GPU", "none: training runs on the CPU, steps are not recorded")]
    rows = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        rows.append((f"GPU {index}", f"{about.name}, {memory}, compute capability {about.major}.{about.minor}"))
    return [*rows, ("training there", "steps are recorded as CUDA graphs (--eager: not)")]


def _cpu() -> Rows:
    about = processor()
    flags = set((about.get("flags") or about.get("Features") or "").split())
    features = ", ".join(feature for feature in CPU_FEATURES if feature in flags) or "no known features"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    faster = choose(AUTO, torch.device("cpu"), SMALLEST_PRODUCT) == ONEDNN
    products = f"oneDNN's from {SMALLEST_PRODUCT:,} multiplications on, PyTorch's" if faster else "PyTorch's"
    return [
        ("CPU", f"{processor_name()}: {cpus} to use, PyTorch's threads {torch.get_num_threads()}; {features}"),
        ("float32 products", f"{products} default library (--products)"),
    ]


def _data(raw: Path) -> Rows:
    """Which raw data are there, and which published experiments wait for what."""
    there: dict[str, bool] = {}
    ready, waiting = [], []
    for name, file in published().items():
        packages = kind_of(read_yaml(file)).packages
        lacking = [package for package in packages if _version(package) == "not installed"]
        sources = [] if lacking else load_experiment(file).sources  # which takes the packages
        there |= {source.name: is_present(source, raw) for source in sources if source.name not in there}
        lacking += [source.name for source in sources if not there[source.name]]
        waiting += [f"{name} ({', '.join(lacking)})"] if lacking else []
        ready += [] if lacking else [name]
    return [
        (f"raw data in {raw}", ", ".join(source for source, found in there.items() if found)),
        ("experiments that can run", ", ".join(ready)),
        ("experiments that wait for", "; ".join(waiting) or "nothing"),
    ]
