"""Which layers BLIP covers, what each of their parameters is, and what nobody protects.

A layer is covered where the gradient of one sample follows exactly from the layer's input and its output's gradient:
linear layers, convolutions, transposed convolutions, embeddings, and norms with affine parameters, as PyTorch computes
them. Linear layers and convolutions may have parametrised weights or biases.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

LINEAR = (nn.Linear,)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EMBEDDINGS = (nn.Embedding,)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS_OVER_LAST = (nn.LayerNorm, nn.RMSNorm)
"""Their parameters have the shape of the last dimensions; those of the other norms are channels, the second one."""
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(*INSTANCE_NORMS, nn.GroupNorm, *NORMS_OVER_LAST),
)
PRODUCTS = (*LINEAR, *CONVOLUTIONS, *TRANSPOSED)
COVERED = (*PRODUCTS, *EMBEDDINGS, *NORMS)

Layer: TypeAlias = Any
"""An instance of one of COVERED. Which, is asked where it matters."""


class UnprotectedWarning(UserWarning):
    """Trainable parameters that BLIP does not protect: later tasks may move them freely."""


@dataclass
class Covered:
    """A parameter that trains, and where it is used: the layers, and `weight` or `bias` of each."""

    parameter: nn.Parameter
    uses: list[tuple[Layer, str]] = field(default_factory=list)
    parametrised: bool = False
    """Whether the layers' own tensors are computed from it."""

    @property
    def is_bias(self) -> bool:
        """Whether it has the range of biases."""
        return self.uses[0][1] == "bias"

    @property
    def rests_at_zero(self) -> bool:
        """Whether 0 says nothing. A norm's weight says nothing at 1, and what is parametrised where it started."""
        return not (self.parametrised or (isinstance(self.uses[0][0], NORMS) and not self.is_bias))

    def size(self, n: Literal["fan-in", "max-fan-in-outputs"] = "fan-in") -> int:
        """n of its layer; where a parametrisation's tensor is not like the weight, the elements of one of its rows."""
        layer, kind = self.uses[0]
        if self.parametrised and self.parameter.shape != getattr(layer, kind).shape:
            return self.parameter[0].numel() if self.parameter.dim() > 1 else 1
        return fan_in(layer) if n == "fan-in" else max_fan_in_outputs(layer)


def named_layers(module: nn.Module) -> dict[str, Layer]:
    """The linear and convolution layers of `module`, by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LINEAR + CONVOLUTIONS)}


def along(values: Tensor, other: Tensor, dimension: int) -> Tensor:
    """`values` (n,) in a shape that is broadcast along all dimensions of `other` but this one (-1: the last)."""
    return values.view([-1 if d == dimension % other.dim() else 1 for d in range(other.dim())])


def fan_in(layer: Layer) -> int:
    """Inputs of one output unit: in_features, or in_channels / groups · kernel size; 1 for norms and embeddings.

    Of a transposed convolution the most that there can be, those with stride 1.
    """
    if isinstance(layer, TRANSPOSED):
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return layer.weight[0].numel() if isinstance(layer, PRODUCTS) else 1


def max_fan_in_outputs(layer: Layer) -> int:
    """The larger of the fan-in and the number of output units: out_features, or out_channels without the kernel.

    1 for norms and embeddings, whose outputs have one input each.
    """
    if isinstance(layer, TRANSPOSED):
        return max(fan_in(layer), layer.out_channels)
    return max(fan_in(layer), len(layer.weight)) if isinstance(layer, PRODUCTS) else 1


def covered_layers(module: nn.Module, unprotected: Collection[str] = ()) -> dict[str, Layer]:
    """The layers of `module` that are covered, by name, without those named by `unprotected`."""
    return {name: layer for name, layer in _layers(module, unprotected) if _is_its_own(layer)}


def foreign_layers(module: nn.Module, unprotected: Collection[str] = ()) -> dict[str, Layer]:
    """Those that are a covered layer by class, but compute something else than it does, as far as they train."""
    return {
        name: layer
        for name, layer in _layers(module, unprotected)
        if not _is_its_own(layer) and any(p.requires_grad for p in layer.parameters())
    }


def layer_parameters(module: nn.Module, unprotected: Collection[str] = ()) -> dict[str, Covered]:
    """Parameters of the covered layers that train, by name, and where each is used.

    Tied ones are there once, by the first name; those with `requires_grad` off, and those that `unprotected` names
    (by their own name or by a module's around them), are not.
    """
    names: dict[nn.Parameter, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad and not is_named(name, unprotected):
            names.setdefault(parameter, name)
    found: dict[nn.Parameter, Covered] = {}
    for layer in covered_layers(module, unprotected).values():
        for kind, parameter, parametrised in _tensors(layer):
            if parameter in names:
                covered = found.setdefault(parameter, Covered(parameter, [], parametrised))
                covered.uses.append((layer, kind))
    return {names[parameter]: covered for parameter, covered in found.items()}


def other_parameters(module: nn.Module, unprotected: Collection[str] = ()) -> list[str]:
    """Names of the parameters that train and that neither a covered layer has nor `unprotected` names."""
    protected = {covered.parameter for covered in layer_parameters(module, unprotected).values()}
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter not in protected and not is_named(name, unprotected)
    ]


def running_statistics(module: nn.Module, unprotected: Collection[str] = ()) -> dict[str, Tensor]:
    """Means and variances that norms keep of what they have seen, and what parametrisations such as `spectral_norm`
    keep, by name; copies."""
    norms = [name for name, m in module.named_modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    return {
        name: buffer.detach().clone()
        for name, buffer in module.named_buffers()
        if (name.endswith(("running_mean", "running_var")) and is_named(name, norms)) or "parametrizations." in name
        if not is_named(name, unprotected)
    }


def is_named(name: str, names: Collection[str]) -> bool:
    """Whether `names` holds this one or that of a module around it."""
    return any(name == other or name.startswith(f"{other}.") for other in names)


def check_names(module: nn.Module, unprotected: Collection[str]) -> tuple[str, ...]:
    """`unprotected`, where each is the name of a parameter or module; else ValueError."""
    if isinstance(unprotected, str):
        raise ValueError(f"unprotected: expected a list of names, found the text {unprotected!r}")
    known = {name for name, _ in (*module.named_parameters(remove_duplicate=False), *module.named_modules())} - {""}
    unknown = [name for name in unprotected if name not in known]
    if unknown:
        raise ValueError(f"unprotected: features has no parameter or module named {', '.join(map(str, unknown))}")
    return tuple(unprotected)


def smallest_input(layer: Layer) -> int:
    """Fewest dimensions of an input whose first one is the batch; 0 where nothing else is taken."""
    if isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return 2 + len(layer.kernel_size)
    if isinstance(layer, INSTANCE_NORMS):
        return next(2 + i for i, kind in enumerate(INSTANCE_NORMS, start=1) if isinstance(layer, kind))
    if isinstance(layer, NORMS_OVER_LAST):
        return 1 + len(layer.normalized_shape)
    return 2 if isinstance(layer, LINEAR) else 0


def _layers(module: nn.Module, unprotected: Collection[str]) -> Iterator[tuple[str, Layer]]:
    inside: set[nn.Module] = set()
    for name, part in module.named_modules():
        if isinstance(part, nn.MultiheadAttention):
            inside.update(part.children())  # it uses their weights without calling them
        if parametrize.is_parametrized(part):
            inside.update(cast(nn.Module, part.parametrizations).modules())
        if isinstance(part, COVERED) and part not in inside and not is_named(name, unprotected):
            yield name, part


def _is_its_own(layer: Layer) -> bool:
    """Whether it computes what its class in PyTorch does, sample by sample and without changing its weights."""
    kind = next(kind for kind in COVERED if isinstance(layer, kind))
    methods = ("forward", "_conv_forward", "_output_padding", "_apply_instance_norm")
    own = all(getattr(type(layer), m, None) is getattr(kind, m, None) and m not in vars(layer) for m in methods)
    if isinstance(layer, EMBEDDINGS):
        return own and layer.max_norm is None and not layer.scale_grad_by_freq
    if isinstance(layer, _BatchNorm):
        return own and layer.running_mean is not None
    return own


def _tensors(layer: Layer) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """`weight` and `bias`, each with the parameters that it is or, where parametrised, is computed from."""
    for kind in ("weight", "bias"):
        if not parametrize.is_parametrized(layer, kind):
            parameter = layer._parameters.get(kind)
            if parameter is not None:
                yield kind, parameter, False
        elif isinstance(layer, PRODUCTS):
            for parameter in cast(nn.ModuleDict, layer.parametrizations)[kind].parameters():
                yield kind, parameter, True
