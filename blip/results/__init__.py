"""From run folders to metrics, tables and figures that a person can read; nothing is retrained."""

from typing import TYPE_CHECKING, Any

from blip.results.loading import Runs, find_runs, load_runs, mixed_runs
from blip.results.metrics import run_metrics, summarise
from blip.results.tables import write_tables

if TYPE_CHECKING:
    from blip.results.figures import write_figures

__all__ = ["Runs", "find_runs", "load_runs", "mixed_runs", "run_metrics", "summarise", "write_figures", "write_tables"]


def __getattr__(name: str) -> Any:
    # On first use, since it imports what draws, which tables do without.
    if name == "write_figures":
        from blip.results.figures import write_figures

        return write_figures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
