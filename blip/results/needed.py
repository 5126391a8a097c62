"""Packages that not every installation has."""

from importlib import import_module
from typing import Any

from blip.errors import BlipError


def needed(module: str) -> Any:
    """A module of a package that the workflow's extra brings. Raises BlipError where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise BlipError(f"{package} is not installed: pip install 'blip-continual[workflow]'") from None
