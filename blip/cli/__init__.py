"""The command line: parses, calls, prints.

A command is a function in the module of its group, below what it is called, says of itself, and takes.
"""

from blip.cli.program import main

__all__ = ["main"]
