"""GPU slots: which GPU of this machine a job may use, so that concurrent jobs do not crowd one of them.

A slot is a locked file. The kernel unlocks it when the job's last process ends, however that comes about.
"""

import fcntl
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from blip.errors import BlipError

POLL_SECONDS = 1.0
DEV = Path("/dev")


def run_on_gpu(command: list[str], jobs_per_gpu: int) -> NoReturn:
    """Become `command`, with a slot of one GPU that no other job holds; waits for one. Without any GPU, just run it.

    Raises BlipError where the command cannot be run or the lock files not be written.
    """
    devices = visible_devices()
    if devices:
        device, descriptor = wait_for_slot(devices, jobs_per_gpu)
        os.set_inheritable(descriptor, True)  # the lock lives as long as the command does
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        print(f"blip: on GPU {device}", file=sys.stderr, flush=True)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise BlipError(f"on-gpu: {command[0]}: {error.strerror}") from None


def visible_devices() -> list[str]:
    """The GPUs that this process may use: of CUDA_VISIBLE_DEVICES where it is set, else all that /dev has."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        # CUDA counts from 0, whatever the numbers of the device files that a container was given.
        return [str(i) for i, _ in enumerate(DEV.glob("nvidia[0-9]*"))]
    devices: list[str] = []
    for name in chosen.split(","):
        if not re.fullmatch(r"\d+|(GPU|MIG)-\S+", name.strip()):
            break  # as CUDA does: -1, or anything that it does not know, ends the list
        devices.append(name.strip())
    return devices


def wait_for_slot(devices: list[str], jobs_per_gpu: int) -> tuple[str, int]:
    """A device and the descriptor that holds its slot; says so once where it has to wait."""
    folder = lock_folder()
    waiting = False
    while True:
        claimed = claim_slot(folder, devices, jobs_per_gpu)
        if claimed:
            return claimed
        if not waiting:
            slots = f"{len(devices)} GPUs × {jobs_per_gpu}" if len(devices) > 1 else f"1 GPU × {jobs_per_gpu}"
            print(f"blip: every GPU slot is taken ({slots}), waiting for one", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(POLL_SECONDS)


def claim_slot(folder: Path, devices: list[str], jobs_per_gpu: int) -> tuple[str, int] | None:
    """The first free slot, every device's first slot before any device's second; None where all are taken."""
    for slot in range(jobs_per_gpu):
        for device in devices:
            path = folder / f"{device.replace('/', '_')}.{slot}"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise BlipError(f"{path}: cannot be written: {error.strerror}") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return device, descriptor
    return None


def lock_folder() -> Path:
    """Where this user's lock files are on this machine.

    A batch job has a folder of its own: it was given its GPUs, and device 0 of one job may be another card than device
    0 of the next.
    """
    job = re.sub(r"\W", "_", os.environ.get("SLURM_JOB_ID", ""))
    folder = Path(tempfile.gettempdir()) / "-".join(filter(None, ("blip-gpus", str(os.getuid()), job)))
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise BlipError(f"{folder}: cannot be made: {error.strerror}") from None
    if owner != os.getuid():
        raise BlipError(f"{folder}: belongs to another user")
    return folder
