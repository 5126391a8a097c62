"""Continual learning via bit-level information preserving (BLIP, CVPR 2021).

In your own training loop, `BLIP` and `diagonal_fisher` are all there is.
"""

from blip.fisher import diagonal_fisher
from blip.freezing import BLIP

__all__ = ["BLIP", "diagonal_fisher"]
