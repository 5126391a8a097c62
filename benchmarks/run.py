"""All benchmarks, or those that are named, one after another: one table of ratios, what, measured, target, limit."""

import os
import subprocess
import sys
from pathlib import Path

import timing
import torch

HELPERS = ("run", "timing")

if __name__ == "__main__":
    folder = Path(__file__).parent
    names = sys.argv[1:] or [path.stem for path in sorted(folder.glob("*.py")) if path.stem not in HELPERS]
    torch.set_num_threads(1)
    timing.head()
    os.environ[timing.ONE_TABLE] = "1"
    failed = [name for name in names if subprocess.run([sys.executable, folder / f"{name}.py"], check=False).returncode]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
