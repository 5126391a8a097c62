"""Continual learning via bit-level information preserving (BLIP, CVPR 2021).

In your own training loop, `BLIP` and `diagonal_fisher` are all there is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip.core.fisher import diagonal_fisher
    from blip.core.freezing import BLIP
    from blip.core.layers import UnprotectedWarning

__all__ = ["BLIP", "UnprotectedWarning", "diagonal_fisher"]


_PLACES = {"BLIP": "freezing", "diagonal_fisher": "fisher", "UnprotectedWarning": "layers"}


def __getattr__(name: str) -> Any:
    # On first use, since it imports torch, which tables and figures do without.
    if name in _PLACES:
        return getattr(import_module(f"blip.core.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
