"""Whether a lock of Snakemake's in this folder may be there for a reason.

Exit status 0 where a Snakemake lives here, or there is no lock; 1 where a killed one has left it. Where processes
cannot be looked at, such as another user's Snakemake, a lock is left alone.
"""

import sys
from pathlib import Path


def lives(process: Path) -> bool:
    """Whether a process of /proc is a Snakemake in this folder, or one that may be."""
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if not any(word.rpartition(b"/")[2] == b"snakemake" for word in command[:3]):
        return False
    try:
        return (process / "cwd").readlink() == Path.cwd()
    except PermissionError:
        return True
    except OSError:  # it has ended
        return False


processes = list(Path("/proc").glob("[0-9]*"))
locked = any(Path(".snakemake/locks").glob("*"))
sys.exit(0 if not locked or not processes or any(map(lives, processes)) else 1)
