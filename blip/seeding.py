"""Randomness is addressed, not consumed: every draw has its own generator, so any epoch can be redone alone."""

import hashlib

import torch


def address(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at one place (task, epoch) of the run with `seed`."""
    text = "/".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *place: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator seeded by address."""
    return torch.Generator(device).manual_seed(address(seed, purpose, *place))
