"""Squared gradients of each sample's loss by a layer's parameters, from its input and its output's gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blip.core.layers import (
    CONVOLUTIONS,
    EMBEDDINGS,
    INSTANCE_NORMS,
    LINEAR,
    NORMS,
    NORMS_OVER_LAST,
    TRANSPOSED,
    Covered,
    Layer,
)

CHUNK_ELEMENTS = 2**24
"""Most elements of per-sample gradients and unfolded inputs held at once where they are needed (64 MiB of float32)."""


@dataclass(frozen=True)
class Call:
    """One call of a layer that uses a parameter as its `kind`, `weight` or `bias`."""

    layer: Layer
    kind: str
    x: Tensor
    """Input, (n, ...)."""
    g: Tensor
    """Gradient of the samples' summed losses by the output, (n, ...)."""

    def __getitem__(self, rows: slice) -> "Call":
        return Call(self.layer, self.kind, self.x[rows], self.g[rows])


def add_squares(total: Tensor, covered: Covered, calls: Sequence[Call]) -> None:
    """Add each sample's squared gradient by a parameter to `total`, in place; all calls are summed before squaring."""
    first = calls[0]
    if len(calls) == 1 and not covered.parametrised and first.kind == "weight":
        if isinstance(first.layer, LINEAR) and first.x.dim() == 2:
            total.addmm_(first.g.square().T, first.x.square())
            return
        if isinstance(first.layer, EMBEDDINGS):
            _add_rows(total, first)
            return
    if not covered.parametrised and all(call.kind == "bias" for call in calls):
        sums = torch.stack([_sum_positions(call.layer, call.g) for call in calls]).sum(0)
        total += sums.square_().sum(0).view_as(total)
        return
    per_sample = total.numel() + sum(_elements(call) for call in calls)
    for rows in _chunks(len(first.x), per_sample):
        gradient: Tensor | None = None
        for call in calls:
            product = _gradient(call[rows]).flatten(1)
            if covered.parametrised:
                product = _through_parametrisation(covered.parameter, call, product)
            gradient = product if gradient is None else gradient.add_(product)
        assert gradient is not None
        total += gradient.square_().sum(0).view_as(total)


def _gradient(call: Call) -> Tensor:
    """Gradient of each sample's loss by the layer's tensor: n samples first, then its elements in their order."""
    layer, x, g = call.layer, call.x, call.g
    if call.kind == "bias":
        return _sum_positions(layer, g)
    if isinstance(layer, NORMS):
        return _sum_positions(layer, g * _normalised(layer, x))
    if isinstance(layer, EMBEDDINGS):
        return _dense_rows(layer, x, g)
    if isinstance(layer, LINEAR):
        return g.reshape(len(g), -1, layer.out_features).mT @ x.reshape(len(x), -1, layer.in_features)
    if isinstance(layer, TRANSPOSED):  # the convolution that it transposes has input and output the other way round
        windows = _unfold(layer, F.pad(g, _paddings(layer)), x.shape[2:])
        return x.reshape(len(x), layer.groups, -1, x[0, 0].numel()) @ windows.mT
    # (n, groups, out / groups, positions) @ (n, groups, positions, taps)
    return g.reshape(len(g), layer.groups, -1, g[0, 0].numel()) @ unfold(layer, x).mT


def _sum_positions(layer: Layer, g: Tensor) -> Tensor:
    """(n, ...) to (n, elements of the bias): the sum over the positions at which each sample has used it."""
    if isinstance(layer, NORMS_OVER_LAST):
        return g.reshape(len(g), -1, layer.weight.numel()).sum(1)
    if isinstance(layer, LINEAR):
        return g.reshape(len(g), -1, layer.out_features).sum(1)
    return g.reshape(*g.shape[:2], -1).sum(2)


def _normalised(layer: Layer, x: Tensor) -> Tensor:
    """What a norm's weight multiplies, in evaluation mode."""
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return F.rms_norm(x, list(layer.normalized_shape), None, layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(x, layer.num_groups, None, None, layer.eps)
    mean, variance = layer.running_mean, layer.running_var
    if isinstance(layer, INSTANCE_NORMS):
        return F.instance_norm(x, mean, variance, use_input_stats=mean is None, eps=layer.eps)
    assert isinstance(layer, _BatchNorm)
    return F.batch_norm(x, mean, variance, training=False, eps=layer.eps)


def _add_rows(total: Tensor, call: Call) -> None:
    """Of an embedding: only the rows that a sample looks up have a gradient."""
    rows = len(total)
    keys, gradients = _looked_up(call.layer, call.x, call.g)
    pairs, position = torch.unique(keys, return_inverse=True)
    sums = gradients.new_zeros(len(pairs), total.shape[1]).index_add_(0, position, gradients)
    total.index_add_(0, pairs % rows, sums.square_())


def _dense_rows(layer: Layer, x: Tensor, g: Tensor) -> Tensor:
    rows, width = layer.num_embeddings, layer.embedding_dim
    keys, gradients = _looked_up(layer, x, g)
    dense = gradients.new_zeros(len(x) * rows, width).index_add_(0, keys, gradients)
    return dense.view(len(x), rows, width)


def _looked_up(layer: Layer, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """sample · rows + row, and the gradient, of every look-up but those of padding."""
    indices = x.reshape(len(x), -1)
    samples = torch.arange(len(x), device=x.device).unsqueeze(1)
    kept = torch.ones_like(indices, dtype=torch.bool) if layer.padding_idx is None else indices != layer.padding_idx
    keys = (samples * layer.num_embeddings + indices)[kept]
    return keys, g.reshape(*indices.shape, layer.embedding_dim)[kept]


def _through_parametrisation(parameter: nn.Parameter, call: Call, gradient: Tensor) -> Tensor:
    """From gradients by the computed tensor, (n, its elements), to those by a parameter that it is computed from."""
    with torch.enable_grad():
        computed = getattr(call.layer, call.kind)
    one = torch.autograd.grad(
        computed, parameter, gradient.view(-1, *computed.shape), is_grads_batched=True, allow_unused=True
    )[0]
    return gradient.new_zeros(len(gradient), parameter.numel()) if one is None else one.flatten(1)


def _elements(call: Call) -> int:
    """Elements that one sample takes besides the gradient: of its unfolded input, and of the computed tensor."""
    layer, positions = call.layer, call.g[0]
    if call.kind == "weight" and isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        small = call.x if isinstance(layer, TRANSPOSED) else call.g
        return int(layer.groups * layer.weight[0].numel() * small[0, 0].numel())
    return int(positions.numel()) if isinstance(layer, NORMS) else 0


def _paddings(layer: Layer) -> list[int]:
    return [p for padding in reversed(layer.padding) for p in (padding, padding)]


def _unfold(layer: Layer, padded: Tensor, positions: Sequence[int]) -> Tensor:
    """What each of `positions` reads: (n, channels, *size) to (n, groups, taps, positions), any dimension."""
    padded = padded.contiguous()
    n, channels, *_ = padded.shape
    strides = padded.stride()[2:]
    windows = padded.as_strided(
        (n, channels, *layer.kernel_size, *positions),
        (
            *padded.stride()[:2],
            *(s * d for s, d in zip(strides, layer.dilation, strict=True)),
            *(s * t for s, t in zip(strides, layer.stride, strict=True)),
        ),
    )
    return windows.reshape(n, layer.groups, channels // layer.groups * layer.weight[0, 0].numel(), -1)


def unfold(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Input of every output position: (n, channels, *size) to (n, groups, taps, positions), any dimension."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    geometry = zip(padded.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True)
    return _unfold(layer, padded, [(s - d * (k - 1) - 1) // t + 1 for s, k, t, d in geometry])


def _chunks(samples: int, elements_per_sample: int) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // elements_per_sample)
    return (slice(start, start + step) for start in range(0, samples, step))
