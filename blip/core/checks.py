"""What must hold before BLIP changes anything; each function raises ValueError, one line that says what does not.

Where training is to blame for it, not the call, that is DegenerateError.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blip.core.layers import Covered, layer_parameters, other_parameters


class DegenerateError(ValueError):
    """Training left weights, or a Fisher information of them, that nothing can be kept by: not finite, or zero."""


Ranges = Mapping[str, tuple[Tensor, Tensor] | tuple[float, float]]


def check_precision(name: str, parameter: nn.Parameter) -> None:
    """Half precision has 8 to 11 bits: a frozen value would move by more than is promised, with every rounding."""
    if parameter.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} is {_text(parameter.dtype)}, which cannot hold frozen bits: "
            "keep parameters in float32 and train under torch.autocast"
        )


def check_prior(name: str, prior: float) -> None:
    """The prior of a parameter, F_prior · n, divides: it must not be 0 or infinite as float32."""
    if not 0 < float(torch.tensor(prior, dtype=torch.float32)) < math.inf:
        raise ValueError(f"{name}: f_prior · n = {prior} is 0 or infinite in float32")


def check_same_parameters(
    features: nn.Module, parameters: Mapping[str, nn.Parameter], others: Collection[str], unprotected: Collection[str]
) -> None:
    """The network's parameters are those that BLIP was built for: none replaced, frozen, unfrozen or of other type."""
    now = {name: covered.parameter for name, covered in layer_parameters(features, unprotected).items()}
    for name, parameter in parameters.items():
        if name not in now:
            raise ValueError(f"{name} trained in a layer that BLIP covers when it was built, and does not any more")
        if now[name] is not parameter:
            raise ValueError(f"{name} was replaced since BLIP was built: copy values into the old one instead")
        check_precision(name, parameter)
    new = [*(now.keys() - parameters.keys()), *(set(other_parameters(features, unprotected)) - set(others))]
    if new:
        raise ValueError(f"{', '.join(sorted(new))}: trains now, but did not when BLIP was built, and is not protected")


def check_weights(
    parameters: Mapping[str, nn.Parameter], ranges: Ranges, bounds: Mapping[str, float], max_bits: int
) -> None:
    """Weights are finite and where training may put them, or an anchor: that of ±B lies one last bit outside."""
    for name, parameter in parameters.items():
        low, high = ranges[name]
        if not bool(torch.isfinite(parameter).all()):
            raise DegenerateError(f"{name} has values that are not finite")
        slack = bounds[name] * (0.5**max_bits + 2**-22)
        if not bool(((parameter >= low - slack) & (parameter <= high + slack)).all()):
            raise ValueError(
                f"{name} has values outside of their range: call attach(optimizer), or clamp_() after every step"
            )


def check_fisher(fisher: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """A Fisher information is there for every parameter, possible, and not zero everywhere."""
    for name, parameter in parameters.items():
        if name not in fisher or fisher[name].shape != parameter.shape:
            raise ValueError(f"fisher has no tensor of shape {tuple(parameter.shape)} for {name}")
        if not bool((torch.isfinite(fisher[name]) & (fisher[name] >= 0)).all()):
            raise DegenerateError(f"the Fisher information of {name} is negative or not finite")
    if not any(bool(fisher[name].any()) for name in parameters):
        raise DegenerateError("the Fisher information is zero everywhere: nothing would be kept of this task")


def check_average(name: str, gain: Tensor, running: Tensor) -> None:
    """The next running average, and the gain in bits, are numbers that float32 has."""
    if not bool((torch.isfinite(gain) & torch.isfinite(running)).all()):
        raise DegenerateError(
            f"the Fisher information of {name} is too large: its average or gain overflows in float32"
        )


def check_state(
    state: Mapping[str, Any], covered: Mapping[str, Covered], bounds: Mapping[str, float], max_bits: int
) -> None:
    """A state is complete and possible for these parameters."""
    missing = [key for key in ("tasks", "bits", "running_fisher", "ranges") if key not in state]
    if missing:
        raise ValueError(f"the state has no {', '.join(missing)}")
    tasks = state["tasks"]
    if not isinstance(tasks, int) or isinstance(tasks, bool) or tasks < 0:
        raise ValueError(f"tasks: expected a whole number ≥ 0, found {tasks!r}")
    state = {"max_bits": max_bits, "bounds": bounds, **state}  # which older states do not have
    if state["max_bits"] != max_bits:
        raise ValueError(f"max_bits: the state is of {state['max_bits']!r}, expected {max_bits}")
    centred = [name for name, c in covered.items() if not c.rests_at_zero]
    tables = {"bits": covered, "running_fisher": covered, "ranges": covered if tasks else (), "centres": centred}
    tables["bounds"] = covered
    for key, names in tables.items():
        table = state.get(key, {})
        if not isinstance(table, Mapping) or set(table) != set(names):
            raise ValueError(f"{key}: the state belongs to a network with other layers")
    statistics = state.get("statistics", {})
    if not isinstance(statistics, Mapping) or not all(isinstance(value, Tensor) for value in statistics.values()):
        raise ValueError("statistics: expected tensors by name")
    for name, c in covered.items():
        shape, centre = c.parameter.shape, torch.zeros(())
        _check_tensor(f"bits of {name}", state["bits"][name], shape, torch.uint8, 0, max_bits)
        running = state["running_fisher"][name]
        _check_tensor(f"running_fisher of {name}", running, shape, torch.float32, math.ulp(0), math.inf)
        if not c.rests_at_zero:
            centre = state["centres"][name]
            _check_tensor(f"centres of {name}", centre, shape, torch.float32, -math.inf, math.inf)
        bound = state["bounds"][name]
        if not isinstance(bound, float) or not math.isclose(bound, bounds[name], rel_tol=1e-9):
            raise ValueError(f"bounds of {name}: the state is of ±{bound}, expected ±{bounds[name]:g}")
        if tasks:
            _check_range(f"ranges of {name}", state["ranges"][name], shape, centre, bounds[name])


def _check_range(what: str, pair: Any, shape: torch.Size, centre: Tensor, bound: float) -> None:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"{what}: expected the lowest and the highest values")
    for end in pair:
        _check_tensor(what, end, shape, torch.float32, -math.inf, math.inf)
    low, high = (end - centre for end in pair)
    most = bound + bound * 2**-20 + centre.abs() * 2**-23  # of float32's roundings
    if not bool(((low <= high) & (low >= -most) & (high <= most)).all()):
        raise ValueError(f"{what}: expected lowest ≤ highest, both within ±{bound:g} of the middle")


def _check_tensor(what: str, value: Any, shape: torch.Size, dtype: torch.dtype, least: float, most: float) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: expected a tensor, found {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(
            f"{what}: the state belongs to a network with other layers: {tuple(value.shape)}, not {tuple(shape)}"
        )
    if value.dtype != dtype:
        raise ValueError(f"{what}: expected {_text(dtype)}, found {_text(value.dtype)}")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{what}: has values that are not finite")
    if value.numel() and not (least <= float(value.min()) and float(value.max()) <= most):
        raise ValueError(f"{what}: expected values from {least:g} to {most:g}")


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
