"""Continual learning via bit-level information preserving (BLIP, CVPR 2021).

In your own training loop, `BLIP` and `diagonal_fisher` are all there is.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip.core.fisher import diagonal_fisher
    from blip.core.freezing import BLIP
    from blip.core.layers import UnprotectedWarning

__all__ = ["BLIP", "UnprotectedWarning", "diagonal_fisher"]


def __getattr__(name: str) -> Any:
    # On first use, since it imports torch, which tables and figures do without.
    if name == "BLIP":
        from blip.core.freezing import BLIP

        return BLIP
    if name == "diagonal_fisher":
        from blip.core.fisher import diagonal_fisher

        return diagonal_fisher
    if name == "UnprotectedWarning":
        from blip.core.layers import UnprotectedWarning

        return UnprotectedWarning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
