"""Tells a Snakemake that lives in this folder from one that was killed and has left its lock.

Exit status 1 where a lock can be taken away. 0 where there is none, or a Snakemake lives here, or where processes
cannot be looked at.
"""

import sys
from pathlib import Path


def lives(process: Path) -> bool:
    """Whether a process of /proc is a Snakemake in this folder."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")[:3]
        here = (process / "cwd").resolve() == Path.cwd()
    except OSError:
        return False
    return here and any(word.rpartition(b"/")[2] == b"snakemake" for word in words)


processes = list(Path("/proc").glob("[0-9]*"))
locked = any(Path(".snakemake/locks").glob("*"))
sys.exit(0 if not locked or not processes or any(map(lives, processes)) else 1)
