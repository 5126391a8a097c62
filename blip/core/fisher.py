"""Exact diagonal Fisher information of linear and convolution layers, sample by sample.

The Fisher information of a weight is the mean over samples of its squared gradient of the log-likelihood. The gradient
of one sample is the outer product of the layer's output gradient and its input, so its square never needs per-sample
weights for a linear layer: Σ_n (g_n xₙᵀ)² = (G∘G)ᵀ(X∘X). A convolution sums such products over positions before
squaring; there the per-sample gradients of one chunk of samples are made by a batched matrix product.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

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


def layer_parameters(module: nn.Module) -> dict[str, tuple[nn.Parameter, list[Layer]]]:
    """Weights and biases of those layers that train, and the layers that use each.

    Tied ones are there once, by the first name; those with `requires_grad` off are not.
    """
    found: dict[nn.Parameter, tuple[str, list[Layer]]] = {}
    for layer_name, layer in named_layers(module).items():
        for kind, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad:
                name = f"{layer_name}.{kind}" if layer_name else kind
                found.setdefault(parameter, (name, []))[1].append(layer)
    return {name: (parameter, layers) for parameter, (name, layers) in found.items()}


def diagonal_fisher(
    features: nn.Module,
    logits: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    loss_batch_size: int = 1,
    labels: Literal["sampled", "exact"] = "sampled",
    max_classes: int = 10,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Diagonal Fisher information of every linear and convolution layer in `features`, as far as it trains.

    `logits(x)` runs the whole network, (n, ...) to (n, classes), and must pass through `features`. A batch is x, and
    labels are then those of the network's own prediction (the Fisher information proper), or (x, labels), and the given
    labels are used (the empirical one). Modules run in evaluation mode: no dropout, fixed batch-norm statistics.

    `labels`: one is `sampled` for each x from the prediction p, as published; or the expectation over them is `exact`,
    Σ_y p(y) (∂ log p(y) / ∂θ)², with one backward pass for each of the `max_classes` likeliest classes. Where there are
    more, one of the others is sampled for each x and weighted by their whole probability: unbiased all the same.

    `loss_batch_size` is N of the published estimate, which takes gradients of the *mean* loss of N samples and so
    carries a factor 1/N² against the usual definition (N = 1). F_prior of the paper holds for its N only. The batches
    given here may have any size: only N scales the result.

    Returns tensors of the parameters' shapes, keyed like `features.named_parameters()`: zeros where no gradient comes.
    Extra memory: those tensors, the activations of one batch, and CHUNK_ELEMENTS floats for convolutions. Raises
    ValueError where the first dimension of a layer's input is not the batch, or where a layer's weights are used
    without calling it, as nn.MultiheadAttention does.
    """
    fisher = {name: torch.zeros_like(parameter) for name, (parameter, _) in layer_parameters(features).items()}
    exact = max_classes if labels == "exact" else 0
    samples = 0
    with _evaluation_mode(features), torch.enable_grad():
        for batch in batches:
            x, given = batch if isinstance(batch, tuple) else (batch, None)
            with _recorded_calls(features) as calls:
                output = logits(x)
            chosen = _weighted_labels(output.detach(), exact, generator) if given is None else [(given, None)]
            _add_squared_gradients(fisher, features, calls, output, chosen)
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

    `scale` · mean over batches of the squared gradient of the batch's mean loss, for the true labels, in the mode that
    the network is in: as published in training mode (dropout on). Not an estimate of the Fisher information proper: it
    depends on the batch size, and λ of the published baselines holds for it alone.
    """
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    count = 0
    for x, labels in batches:
        loss = F.cross_entropy(logits(x), labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                fisher[name].addcmul_(gradient, gradient)
        count += 1
    return {name: value.mul_(scale / count) for name, value in fisher.items()}


_Calls: TypeAlias = dict[Layer, list[tuple[Tensor, GradientEdge]]]
_Uses: TypeAlias = list[tuple[Layer, Tensor, Tensor]]
"""Layer, input and output gradient of every call that uses a parameter."""
_Labels: TypeAlias = tuple[Tensor, Tensor | None]
"""A label for each sample (n,), and what its squared gradient weighs (n,), 1 where left out."""


def _weighted_labels(logits: Tensor, exact: int, generator: torch.Generator | None) -> list[_Labels]:
    """Labels whose weighted squared gradients add up to the expectation over the prediction, in the mean over draws.

    The `exact` likeliest classes of each sample, and a drawn one that stands for all others.
    """
    if not exact:
        return [(torch.multinomial(F.softmax(logits, dim=1), 1, generator=generator).squeeze(1), None)]
    ordered, classes = logits.sort(dim=1, descending=True)
    weights = F.softmax(ordered, dim=1)
    chosen: list[_Labels] = list(zip(classes.T[:exact], weights.T[:exact], strict=True))
    if len(classes.T) > exact:
        among_others = F.softmax(ordered[:, exact:], dim=1)  # never all zero, as probabilities themselves may be
        drawn = torch.multinomial(among_others, 1, generator=generator)
        chosen.append((classes[:, exact:].gather(1, drawn).squeeze(1), weights[:, exact:].sum(1)))
    return chosen


def _add_squared_gradients(
    fisher: dict[str, Tensor], features: nn.Module, calls: _Calls, output: Tensor, chosen: Sequence[_Labels]
) -> None:
    """Add the samples' squared gradients of the log-likelihood to `fisher`, in place, for all `chosen` labels."""
    parameters = layer_parameters(features)
    idle = {name: p for name, (p, layers) in parameters.items() if not any(calls[layer] for layer in layers)}
    for left, (labels, weight) in zip(reversed(range(len(chosen))), chosen, strict=True):
        losses = F.cross_entropy(output, labels, reduction="none")
        loss = (losses if weight is None else losses * weight.sqrt()).sum()  # weighs squares by `weight`
        gradients = _output_gradients(calls, idle, loss, len(labels), retain_graph=left > 0)
        for name, (_, layers) in parameters.items():
            uses = [(layer, *pair) for layer in layers for pair in gradients[layer]]
            if uses:
                (_add_bias if fisher[name].dim() == 1 else _add_weight)(fisher[name], uses)


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
def _recorded_calls(module: nn.Module) -> Iterator[_Calls]:
    """Input and output edge of every call of every layer.

    The edge, not the output, is kept: an in-place activation afterwards changes the tensor, not the edge.
    """
    calls: _Calls = {layer: [] for layer in named_layers(module).values()}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:  # not of frozen layers
            calls[layer].append((inputs[0].detach(), get_gradient_edge(output)))  # type: ignore[index]

    handles = [layer.register_forward_hook(record) for layer in calls]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _output_gradients(
    calls: _Calls, idle: dict[str, nn.Parameter], loss: Tensor, samples: int, *, retain_graph: bool
) -> dict[Layer, list[tuple[Tensor, Tensor]]]:
    """Input and gradient of the summed `loss` by the output, for every call that reaches the loss.

    The loss must not depend on `idle`, the parameters of which no call was seen.
    """
    wanted: list[Any] = [edge for layer_calls in calls.values() for _, edge in layer_calls]
    grad = torch.autograd.grad(loss, [*wanted, *idle.values()], retain_graph=retain_graph, allow_unused=True)
    gradients = iter(grad)
    pairs: dict[Layer, list[tuple[Tensor, Tensor]]] = {}
    for layer, layer_calls in calls.items():
        pairs[layer] = [(x, g) for x, _ in layer_calls if (g := next(gradients)) is not None]
        for x, _ in pairs[layer]:
            if len(x) != samples:
                raise ValueError(f"{layer}: input of shape {tuple(x.shape)}, expected the batch of {samples} first")
    for name, gradient in zip(idle, gradients, strict=True):
        if gradient is not None:
            raise ValueError(f"{name} is used without calling its layer, so its Fisher information cannot be seen")
    return pairs


def _add_weight(total: Tensor, uses: _Uses) -> None:
    """Add the per-sample squared gradients of a weight, in place; all its uses are summed before squaring."""
    layer, x, g = uses[0]
    if len(uses) == 1 and isinstance(layer, nn.Linear) and x.dim() == 2:
        total.addmm_(g.square().T, x.square())
        return
    per_sample = total.numel() + sum(_unfolded_elements(*use) for use in uses)
    for rows in _chunks(len(x), per_sample):
        gradient: Tensor | None = None
        for layer, x, g in uses:
            product = _per_sample_gradient(layer, x[rows], g[rows]).flatten(1)
            gradient = product if gradient is None else gradient.add_(product)
        assert gradient is not None
        total += gradient.square_().sum(0).view_as(total)


def _add_bias(total: Tensor, uses: _Uses) -> None:
    """Add the per-sample squared gradients of a bias, in place."""
    sums = [
        g.reshape(len(g), -1, len(total)).sum(1) if isinstance(layer, nn.Linear) else g.flatten(2).sum(2)
        for layer, _, g in uses
    ]
    total += torch.stack(sums).sum(0).square_().sum(0)


def _per_sample_gradient(layer: Layer, x: Tensor, g: Tensor) -> Tensor:
    """Gradient of each sample's loss by the weight: n samples first, then the weight's elements in their order."""
    if isinstance(layer, nn.Linear):
        return g.reshape(len(g), -1, layer.out_features).mT @ x.reshape(len(x), -1, layer.in_features)
    # (n, groups, out / groups, positions) @ (n, groups, positions, taps)
    return g.reshape(len(g), layer.groups, -1, g[0, 0].numel()) @ unfold(layer, x).mT


def _unfolded_elements(layer: Layer, x: Tensor, g: Tensor) -> int:
    """Elements of one sample's unfolded input; a linear layer's input is as it is."""
    return 0 if isinstance(layer, nn.Linear) else layer.groups * layer.weight[0].numel() * g[0, 0].numel()


def unfold(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
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
