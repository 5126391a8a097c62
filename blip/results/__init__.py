"""From run folders to metrics, tables and figures that a person can read; nothing is retrained."""

from blip.results.loading import Runs, find_runs, load_runs, mixed_runs
from blip.results.metrics import run_metrics, summarise
from blip.results.tables import write_tables

__all__ = ["Runs", "find_runs", "load_runs", "mixed_runs", "run_metrics", "summarise", "write_tables"]
