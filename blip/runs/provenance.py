"""What made the numbers of a run: code, libraries, hardware, command."""

import platform
import re
import resource
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from blip.devices import processor_name
from blip.record import Provenance

ABSOLUTE = re.compile(r"(?<![^\s=:,;'\"(\[{])~?/[^\s,;'\")\]}]+")
"""A path within a word of the command, such as that of --out=/home/me/runs."""


def provenance(
    device: torch.device, started: datetime, commit: str, products: str, packages: tuple[str, ...]
) -> Provenance:
    """Of a run that ends now, and began at `commit`; no host or user name, no absolute path."""
    arguments = [
        Path(a).name if Path(a).is_absolute() else ABSOLUTE.sub(lambda path: Path(path.group()).name, a)
        for a in sys.argv
    ]
    return Provenance(
        commit=commit,
        versions={"python": platform.python_version(), **{p: metadata.version(p) for p in packages}},
        cpu=processor_name(),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        threads=torch.get_num_threads(),
        products=products,
        command=" ".join(arguments),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        peak_memory_mb=round(_peak_memory_mb(device), 1),
    )


def _peak_memory_mb(device: torch.device) -> float:
    """Of the device where it has memory of its own, otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
