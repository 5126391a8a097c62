"""The command line: parses, calls, prints.

A command is two functions beside each other in the module of its group: one that adds its parser, one that runs it.
"""

from blip.cli.program import main

__all__ = ["main"]
