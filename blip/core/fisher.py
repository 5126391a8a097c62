"""Exact diagonal Fisher information of the layers that BLIP covers, sample by sample.

The Fisher information of a weight is the mean over samples of its squared gradient of the log-likelihood. The gradient
of one sample is the outer product of the layer's output gradient and its input, so its square never needs per-sample
weights for a linear layer: Σ_n (g_n xₙᵀ)² = (G∘G)ᵀ(X∘X). A convolution sums such products over positions before
squaring; there the per-sample gradients of one chunk of samples are made by a batched matrix product.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm

from blip.core.layers import (
    Covered,
    Layer,
    check_names,
    covered_layers,
    foreign_layers,
    layer_parameters,
    smallest_input,
)
from blip.core.per_sample import Call, add_squares


def diagonal_fisher(
    features: nn.Module,
    logits: Callable[[Any], Tensor],
    batches: Iterable[Any],
    *,
    loss_batch_size: int = 1,
    labels: Literal["sampled", "exact"] = "sampled",
    max_classes: int = 10,
    batch_statistics: bool = False,
    generator: torch.Generator | None = None,
    unprotected: Collection[str] = (),
) -> dict[str, Tensor]:
    """Diagonal Fisher information of every layer in `features` that BLIP covers, as far as it trains.

    `logits(x)` runs the whole network, (n, ...) to (n, classes), and must pass through `features`. A batch is what it
    takes, x or [x]; labels are then those of the network's own prediction (the Fisher information proper). Or it is a
    pair (x, labels), as `DataLoader`s give, whose labels are used (the empirical one, which is not published).
    `features` runs in evaluation mode: no dropout, fixed batch-norm statistics. Call `eval()` of a head that has them.

    `labels`: one is `sampled` for each x from the prediction p, as published; or the expectation over them is `exact`,
    Σ_y p(y) (∂ log p(y) / ∂θ)², with one backward pass for each of the `max_classes` likeliest classes. Where there are
    more, one of the others is sampled for each x and weighted by their whole probability: unbiased all the same.

    `loss_batch_size` is N of the published estimate, which takes gradients of the *mean* loss of N samples and so
    carries a factor 1/N² against the usual definition (N = 1). F_prior of the paper holds for its N only. The batches
    given here may have any size: only N scales the result.

    `unprotected` names parameters or modules to leave out, as `BLIP` has it. Autocast is off in here.
    Returns tensors of the parameters' shapes (float32 for those in half precision), keyed like
    `features.named_parameters()`: zeros where no gradient comes. Extra memory: those tensors, the activations of one
    batch, and CHUNK_ELEMENTS floats for what is not a linear layer.

    Raises ValueError where the first dimension of a layer's input is not the batch; where a weight is used otherwise
    than by calling its layer, as well or alone; where a layer computes something else than PyTorch's; where nothing in
    `features` trains; and where samples depend on each other, by a batch-norm without running statistics, unless
    `batch_statistics` says that each sample's gradient may hold some of the others'.
    """
    over_batch = _over_batch(features, batch_statistics)
    parameters = _checked(features, loss_batch_size, labels, max_classes, [*unprotected, *over_batch])
    fisher = {name: torch.zeros_like(c.parameter, dtype=_accumulated(c.parameter)) for name, c in parameters.items()}
    exact = max_classes if labels == "exact" else 0
    samples = 0
    with _evaluation_mode(features), torch.enable_grad(), _full_precision(parameters), _uncompiled():
        for x, given in _checked_batches(batches, features, parameters, logits):
            samples += _add_batch(fisher, features, parameters, logits, x, given, exact, generator)
    if not samples:
        raise ValueError("batches: expected at least one sample, found none")
    for value in fisher.values():
        value.div_(samples * loss_batch_size**2)
    return fisher


def _add_batch(
    fisher: dict[str, Tensor],
    features: nn.Module,
    parameters: dict[str, Covered],
    logits: Callable[[Any], Tensor],
    x: Any,
    given: Tensor | None,
    exact: int,
    generator: torch.Generator | None,
) -> int:
    """Add the squared gradients of a batch, in place; how many samples it has."""
    with _recorded_calls(features, parameters) as calls:
        output = logits(x)
        _check_logits(output)
        seen = {layer: list(layer_calls) for layer, layer_calls in calls.items()}
        chosen = _weighted_labels(output.detach(), exact, generator) if given is None else [(given, None)]
        _add_squared_gradients(fisher, parameters, seen, output, chosen)
    return len(output)


def _check_logits(output: Any) -> None:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < 2:
        raise ValueError(f"logits: expected a tensor (samples, classes) of two classes or more, found {shape}")


def _checked_batches(
    batches: Iterable[Any], features: nn.Module, parameters: dict[str, Covered], logits: Callable[[Any], Tensor]
) -> Iterator[tuple[Any, Tensor | None]]:
    """Inputs of each batch and its labels, if it has some.

    Two samples of the first batch run alone after it: as many positions as there are samples look like a batch, but
    stay as many.
    """
    for i, batch in enumerate(batches):
        parts = batch if isinstance(batch, tuple | list) else [batch]
        if not 1 <= len(parts) <= 2:
            raise ValueError(f"batches: expected inputs, or pairs of inputs and labels, found {len(parts)} parts")
        yield parts[0], parts[1] if len(parts) == 2 else None
        if i == 0 and isinstance(parts[0], Tensor) and len(parts[0]) > 2:
            with _recorded_calls(features, parameters) as calls:
                total = logits(parts[0][:2]).sum()
                seen = {layer: list(layer_calls) for layer, layer_calls in calls.items()}
                _output_gradients(seen, parameters, total, 2, retain_graph=False)  # looks at what reaches the output


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Compiled modules run as they were written: what was compiled before does not see hooks that come later."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def batch_gradient_fisher(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """What the published EWC and IMM take for the Fisher information of every parameter of `network`.

    20 · mean over batches of the squared gradient of the batch's mean loss, for the true labels, in the mode that
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
    return {name: value.mul_(20 / count) for name, value in fisher.items()}


_Calls: TypeAlias = dict[Layer, list[tuple[Tensor, GradientEdge]]]
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
    fisher: dict[str, Tensor], parameters: dict[str, Covered], calls: _Calls, output: Tensor, chosen: Sequence[_Labels]
) -> None:
    """Add the samples' squared gradients of the log-likelihood to `fisher`, in place, for all `chosen` labels."""
    if not output.requires_grad:
        raise ValueError("logits: the output depends on no layer of features that trains")
    output = output.to(_accumulated(output))
    for left, (labels, weight) in zip(reversed(range(len(chosen))), chosen, strict=True):
        losses = F.cross_entropy(output, labels, reduction="none")
        loss = (losses if weight is None else losses * weight.sqrt()).sum()  # weighs squares by `weight`
        gradients = _output_gradients(calls, parameters, loss, len(labels), retain_graph=left > 0)
        for name, covered in parameters.items():
            total = fisher[name]
            uses = [
                Call(layer, kind, x.to(total.dtype) if x.is_floating_point() else x, g.to(total.dtype))
                for layer, kind in covered.uses
                for x, g in gradients[layer]
            ]
            if uses:
                add_squares(total, covered, uses)


def _over_batch(features: nn.Module, allowed: bool) -> list[str]:
    """The batch-norms without running statistics, which have no Fisher information; ValueError unless allowed."""
    names = [n for n, m in features.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is None]
    if names and not allowed:
        raise ValueError(
            f"{names[0]} has no running statistics: samples depend on each other, none has its own gradient"
        )
    return names


def _checked(
    features: nn.Module, loss_batch_size: int, labels: str, max_classes: int, unprotected: Collection[str]
) -> dict[str, Covered]:
    """The parameters whose Fisher information can be had; ValueError where some cannot, or arguments are bad."""
    if loss_batch_size < 1 or max_classes < 1:
        raise ValueError(f"expected loss_batch_size and max_classes ≥ 1, found {loss_batch_size} and {max_classes}")
    if labels not in ("sampled", "exact"):
        raise ValueError(f"labels: expected 'sampled' or 'exact', found {labels!r}")
    names = check_names(features, unprotected)
    foreign = foreign_layers(features, names)
    if foreign:
        described = ", ".join(f"{name} ({type(layer).__name__})" for name, layer in foreign.items())
        raise ValueError(
            f"layers that compute something else than PyTorch's own: {described}; name them in `unprotected`"
        )
    parameters = layer_parameters(features, names)
    if not parameters:
        raise ValueError("features has no parameter that trains in any layer that BLIP covers")
    return parameters


def _accumulated(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@contextmanager
def _full_precision(parameters: dict[str, Covered]) -> Iterator[None]:
    with ExitStack() as stack:
        for device in {"cpu", *(covered.parameter.device.type for covered in parameters.values())}:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


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
def _recorded_calls(module: nn.Module, parameters: dict[str, Covered]) -> Iterator[_Calls]:
    """Input and output edge of every call of every layer that has one of `parameters`.

    The edge, not the output, is kept: an in-place activation afterwards changes the tensor, not the edge. Within a call
    the layer's parameters are constants, so that a gradient reaches them only where they are used outside of one.
    The block must hold the backward pass too, which runs layers again where activations are recomputed.
    """
    calls: _Calls = {layer: [] for layer in covered_layers(module).values()}
    own = {layer: {c.parameter for c in parameters.values() if any(u is layer for u, _ in c.uses)} for layer in calls}

    def hide(layer: nn.Module, _: Any) -> None:
        for parameter in own[layer]:
            parameter.requires_grad_(False)

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
        for parameter in own[layer]:
            parameter.requires_grad_(True)
        if not torch.is_grad_enabled():
            return output
        if not output.requires_grad:
            output = output.requires_grad_().clone()  # no leaf, which nothing may change in place
        x = inputs[0] if inputs else named["input"]
        calls[layer].append((x.detach(), get_gradient_edge(output)))
        return output

    handles = []
    for layer in (layer for layer, used in own.items() if used):
        handles.append(layer.register_forward_pre_hook(hide))
        handles.append(layer.register_forward_hook(record, prepend=True, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for covered in parameters.values():
            covered.parameter.requires_grad_(True)


def _output_gradients(
    calls: _Calls, parameters: dict[str, Covered], loss: Tensor, samples: int, *, retain_graph: bool
) -> dict[Layer, list[tuple[Tensor, Tensor]]]:
    """Input and gradient of the summed `loss` by the output, for every call that reaches the loss.

    The loss must not depend on `parameters` but through those calls.
    """
    for covered in parameters.values():
        covered.parameter.requires_grad_(True)  # a recomputation in the backward pass may have stopped half-way
    edges: list[Any] = [edge for layer_calls in calls.values() for _, edge in layer_calls]
    wanted = [*edges, *(covered.parameter for covered in parameters.values())]
    grad = torch.autograd.grad(loss, wanted, retain_graph=retain_graph, allow_unused=True)
    gradients = iter(grad)
    pairs: dict[Layer, list[tuple[Tensor, Tensor]]] = {}
    for layer, layer_calls in calls.items():
        pairs[layer] = [(x, g) for x, _ in layer_calls if (g := next(gradients)) is not None]
        for x, _ in pairs[layer]:
            if not len(x) == samples or x.dim() < smallest_input(layer):
                raise ValueError(f"{layer}: input of shape {tuple(x.shape)}, expected the batch of {samples} first")
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            raise ValueError(f"{name} is used without calling its layer, so its Fisher information cannot be seen")
    return pairs
