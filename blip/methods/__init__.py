"""Continual-learning methods, one file each; every module in this folder is imported and may register one."""

import importlib
import pkgutil

from blip.methods.base import METHODS, Method, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "register"]
