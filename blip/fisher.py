"""Exact diagonal Fisher information of linear and convolution layers, sample by sample.

The Fisher information of a weight is the mean over samples of its squared gradient of the log-likelihood. The gradient
of one sample is the outer product of the layer's output gradient and its input, so its square never needs per-sample
weights for a linear layer: Σ_n (g_n xₙᵀ)² = (G∘G)ᵀ(X∘X). A convolution sums such products over positions before
squaring; there the per-sample gradients of one chunk of samples are made by a batched matrix product.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

CHUNK_ELEMENTS = 2**24
"""Most elements of per-sample gradients and unfolded inputs held at once for a convolution (64 MiB of float32)."""


def named_layers(module: nn.Module) -> dict[str, Layer]:
    """The linear and convolution layers of `module`, by name; their weights and biases are what BLIP freezes."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LAYERS)}


def diagonal_fisher(
    features: nn.Module,
    logits: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    loss_batch_size: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Diagonal Fisher information of every linear and convolution layer in `features`.

    `logits(x)` runs the whole network, (n, ...) to (n, classes), and must pass through `features`. A batch is x, and
    labels are then drawn from the network's own prediction (the Fisher information proper), or (x, labels), and the
    given labels are used (the empirical one). Modules run in evaluation mode: no dropout, fixed batch-norm statistics.

    `loss_batch_size` is N of the published estimate, which takes gradients of the *mean* loss of N samples and so
    carries a factor 1/N² against the usual definition (N = 1). F_prior of the paper holds for its N only. The batches
    given here may have any size: only N scales the result.

    Returns tensors of the parameters' shapes, keyed like `features.named_parameters()`. Extra memory: those tensors,
    the activations of one batch, and CHUNK_ELEMENTS floats for convolutions.
    """
    layers = named_layers(features)
    parameters = {
        f"{name}.{p}" if name else p: q
        for name, layer in layers.items()
        for p, q in layer.named_parameters(recurse=False)
    }
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    samples = 0
    with _evaluation_mode(features), torch.enable_grad():
        for batch in batches:
            x, labels = batch if isinstance(batch, tuple) else (batch, None)
            with _recorded_calls(layers) as calls:
                output = logits(x)
            if labels is None:
                probabilities = F.softmax(output.detach(), dim=1)
                labels = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
            loss = F.cross_entropy(output, labels, reduction="sum")
            _accumulate(fisher, layers, calls, loss)
            samples += len(x)
    for value in fisher.values():
        value.div_(samples * loss_batch_size**2)
    return fisher


def batch_gradient_fisher(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    scale: float = 20.0,
) -> dict[str, Tensor]:
    """What the published EWC and IMM take for the Fisher information of every parameter of `network`.

    `scale` · mean over batches of the squared gradient of the batch's mean loss, for the true labels, in training mode
    (dropout on). Not an estimate of the Fisher information proper: it depends on the batch size, and λ of the
    published baselines holds for it alone.
    """
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    network.train()
    count = 0
    for x, labels in batches:
        loss = F.cross_entropy(logits(x), labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                fisher[name].addcmul_(gradient, gradient)
        count += 1
    return {name: value.mul_(scale / count) for name, value in fisher.items()}


_Calls: TypeAlias = dict[str, list[tuple[Tensor, GradientEdge]]]


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def _recorded_calls(layers: dict[str, Layer]) -> Iterator[_Calls]:
    """Input and output edge of every call of every layer.

    The edge, not the output, is kept: an in-place activation afterwards changes the tensor, not the edge.
    """
    calls: _Calls = {name: [] for name in layers}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name].append((inputs[0].detach(), get_gradient_edge(output)))

        return hook

    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _accumulate(fisher: dict[str, Tensor], layers: dict[str, Layer], calls: _Calls, loss: Tensor) -> None:
    """Add each layer's per-sample squared gradients of the summed `loss` to `fisher`, in place."""
    edges = [edge for layer_calls in calls.values() for _, edge in layer_calls]
    gradients = iter(torch.autograd.grad(loss, edges, allow_unused=True))
    for name, layer in layers.items():
        pairs = [(x, next(gradients)) for x, _ in calls[name]]
        pairs = [(x, g) for x, g in pairs if g is not None]
        if not pairs:
            continue
        prefix = f"{name}." if name else ""
        weight = fisher[f"{prefix}weight"]
        bias = fisher.get(f"{prefix}bias")
        add = _add_linear if isinstance(layer, nn.Linear) else _add_convolution
        add(layer, pairs, weight, bias)  # type: ignore[arg-type]


def _add_linear(layer: nn.Linear, pairs: list[tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor | None) -> None:
    if len(pairs) == 1 and pairs[0][0].dim() == 2:
        x, g = pairs[0]
        squared = g.square()
        weight.addmm_(squared.T, x.square())
        if bias is not None:
            bias += squared.sum(0)
        return
    # Inputs (n, ..., features), or several calls of one layer: positions are summed within a sample before squaring.
    x = torch.cat([x.reshape(len(x), -1, layer.in_features) for x, _ in pairs], 1)
    g = torch.cat([g.reshape(len(g), -1, layer.out_features) for _, g in pairs], 1)
    per_sample = layer.in_features * layer.out_features
    for rows in _chunks(len(x), per_sample):
        weight += (g[rows].mT @ x[rows]).square_().sum(0)
    if bias is not None:
        bias += g.sum(1).square_().sum(0)


def _add_convolution(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d,
    pairs: list[tuple[Tensor, Tensor]],
    weight: Tensor,
    bias: Tensor | None,
) -> None:
    taps = weight[0].numel()  # weights of one output channel: in_channels / groups · kernel size
    per_sample = weight.numel() + sum(layer.groups * taps * g[0, 0].numel() for _, g in pairs)
    for rows in _chunks(len(pairs[0][0]), per_sample):
        gradient: Tensor | None = None
        for x, g in pairs:
            # (n, groups, out / groups, positions) @ (n, groups, positions, taps)
            outputs = g[rows].reshape(len(g[rows]), layer.groups, -1, g[0, 0].numel())
            product = outputs @ _unfold(layer, x[rows]).mT
            gradient = product if gradient is None else gradient.add_(product)
        assert gradient is not None
        weight += gradient.square_().sum(0).view_as(weight)
    if bias is not None:
        bias += sum(g.flatten(2).sum(2) for _, g in pairs).square_().sum(0)  # type: ignore[union-attr]


def _unfold(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Input of every output position: (n, channels, *size) to (n, groups, taps, positions), any dimension."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode).contiguous()
    n, channels, *size = padded.shape
    geometry = zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    positions = [(s - d * (k - 1) - 1) // t + 1 for s, k, t, d in geometry]
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


def _chunks(samples: int, elements_per_sample: int) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // elements_per_sample)
    return (slice(start, start + step) for start in range(0, samples, step))
