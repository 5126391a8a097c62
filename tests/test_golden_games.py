"""Numbers of the published layers for games come out: bits equal, floats to float32 rounding.

They are in golden/golden-games.npz, or in the file that BLIP_GOLDEN_GAMES names, as for test_golden.py.
"""

import golden_numbers
import pytest
import torch
from golden_numbers import close, layer_of
from torch import Tensor

from blip import BLIP

GOLDEN = golden_numbers.load("BLIP_GOLDEN_GAMES", "golden-games.npz")
LAYERS = sorted({key.split("/")[0] for key in GOLDEN})
KINDS = ("weight", "bias")


def numbers(layer: str, name: str) -> Tensor:
    return GOLDEN[f"{layer}/{name}"]


def published(name: str) -> BLIP:
    layer = layer_of(tuple(numbers(name, "weight_shape").tolist()))
    return BLIP(layer, float(numbers(name, "f_prior")), n="max-fan-in-outputs")


@pytest.mark.parametrize("name", LAYERS)
def test_ranges_and_priors(name: str) -> None:
    blip = published(name)
    assert blip.bounds["weight"] == pytest.approx(float(numbers(name, "bound")), rel=1e-6)
    assert blip.bounds["bias"] == 1
    for prior in blip.running_fisher.values():
        close(prior, torch.full_like(prior, float(numbers(name, "prior"))), atol=0)


@pytest.mark.parametrize("name", [n for n in LAYERS if f"{n}/proposed_weight" in GOLDEN])
def test_consolidation(name: str) -> None:
    blip = published(name)
    with torch.no_grad():
        for kind in KINDS:
            blip.parameters[kind].copy_(numbers(name, f"proposed_{kind}"))
    blip.clamp_()
    for kind in KINDS:
        close(blip.parameters[kind].detach(), numbers(name, f"clipped_{kind}"))
    blip.consolidate({kind: numbers(name, f"fisher_{kind}") for kind in KINDS})
    for kind in KINDS:
        assert torch.equal(blip.bits[kind].long(), numbers(name, f"bits_{kind}"))
    close(blip.parameters["weight"].detach(), numbers(name, "quantised_weight"))
    close(blip.running_fisher["weight"], numbers(name, "running_fisher_weight"), atol=0)


def test_every_number_of_the_file_is_compared() -> None:
    compared = {"weight_shape", "f_prior", "bound", "prior", "quantised_weight", "running_fisher_weight"}
    compared |= {f"{number}_{kind}" for number in ("proposed", "clipped", "fisher", "bits") for kind in KINDS}
    assert {key.split("/")[1] for key in GOLDEN} <= compared
