"""A training step of each method in the second task, against the same step of plain SGD: the MLP of mnist5, batch 64.

The loop's own steps: batch picked and normalised, hooks, update. `methods.py ewc si` measures these alone.
"""

import sys

import timing
from tasks import steps

from blip.methods import METHODS

PAIRS = 15
TARGETS = {"blip": 1.15, "ewc": 1.4, "si": 1.4, "mas": 1.4, "hat": 1.6, "gpm": 1.5}
"""The others have none."""


if __name__ == "__main__":
    timing.main()
    for method in sys.argv[1:] or METHODS:
        ratio = timing.paired_ratio(steps(method, 2), steps("sgd", 2), PAIRS, 1)
        timing.report(f"{method}: step / step of `sgd`", ratio, TARGETS.get(method), PAIRS)
