"""Networks: shared features and one linear head per task. No method in here."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from blip.core.layers import named_layers
from blip.errors import BlipError
from blip.schema import Fraction, Schema

Multiple = Annotated[float, Field(ge=1 / 64, le=64)]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class MLPConfig(Schema):
    """Fully connected layers with ReLU (paper: one hidden layer of 1200 units for MNIST)."""

    name: Literal["mlp"]
    hidden: list[PositiveInt] = Field(min_length=1)
    bias: bool = True
    """Of all layers and heads."""

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from images of `shape` (channels, height, width) to a vector, and its width."""
        widths = [math.prod(shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, self.bias), nn.ReLU()]
        return nn.Sequential(*layers), widths[-1]


class AlexNetConfig(Schema):
    """The AlexNet-like network of the paper (design of Serrà et al., 2018), for square images of side s.

    Convolutions of 64·mul, 128·mul and 256·mul channels with kernels s // 8, s // 10 and 2, each with ReLU, dropout
    and 2×2 max-pooling; then two hidden linear layers with ReLU and dropout.
    """

    name: Literal["alexnet"]
    mul: Multiple = 1.0
    """Factor on the numbers of channels."""
    hidden: tuple[PositiveInt, PositiveInt] = (2048, 2048)
    dropout: tuple[Fraction, Fraction, Fraction, Fraction, Fraction] = (0.2, 0.2, 0.2, 0.2, 0.2)
    """After each of the three convolutions and the two linear layers."""
    bias: bool = True
    """Of all layers and heads."""
    batch_norm: bool = False
    """Whether each layer has batch-norm before its ReLU, with affine parameters and without running statistics: those
    of the batch are used in testing too, so batches are of the size of training there."""

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from images of `shape` (channels, side, side) to a vector, and its width."""
        channels, side, _ = shape
        layers: list[nn.Module] = []
        kernels = (side // 8, side // 10, 2)
        if side < 12:  # nothing would be left after the third pooling
            raise BlipError(f"network alexnet: expected images of at least 12 pixels a side, found {side}")
        for base, kernel, dropout in zip((64, 128, 256), kernels, self.dropout, strict=False):
            outputs = round(base * self.mul)
            norm = [nn.BatchNorm2d(outputs, track_running_stats=False)] if self.batch_norm else []
            convolution = nn.Conv2d(channels, outputs, kernel, bias=self.bias)
            # ReLU first would give the same numbers and gradients, bit by bit, but it would go over four times as many.
            layers += [convolution, *norm, Dropout(dropout), nn.MaxPool2d(2), nn.ReLU()]
            channels, side = outputs, (side - kernel + 1) // 2
        widths = (channels * side * side, *self.hidden)
        layers.append(nn.Flatten())
        for (inputs, outputs), dropout in zip(pairwise(widths), self.dropout[3:], strict=True):
            norms = [nn.BatchNorm1d(outputs, track_running_stats=False)] if self.batch_norm else []
            layers += [nn.Linear(inputs, outputs, self.bias), *norms, nn.ReLU(), Dropout(dropout)]
        return nn.Sequential(*layers), widths[-1]


class ResNet18Config(Schema):
    """The paper's ResNet-18 for small images: no max-pooling, batch-norm without affine parameters.

    A 3×3 convolution of stride 2 and 64·mul channels, four stages of two basic blocks with 64, 128, 256 and 512·mul
    channels, the last three halving the side, then 4×4 average pooling (over the whole map where that is smaller).
    """

    name: Literal["resnet18"]
    mul: Multiple = 1.0
    """Factor on the numbers of channels; on a CPU not below 0.125 (docs/reliability.md, on what is not promised)."""
    bias: ClassVar[bool] = True
    """Of the heads."""

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from images of `shape` (channels, side, side) to a vector, and its width."""
        channels, side, _ = shape
        widths = [int(base * self.mul) for base in (64, 128, 256, 512)]
        layers: list[nn.Module] = [*_convolution(channels, widths[0], 3, stride=2), nn.ReLU()]
        side = (side + 1) // 2
        for inputs, outputs, stride in zip(widths[:1] + widths[:-1], widths, (1, 2, 2, 2), strict=True):
            layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
            side = (side + stride - 1) // stride
        pool = min(4, side)
        layers += [nn.AvgPool2d(pool), nn.Flatten()]
        return nn.Sequential(*layers), widths[-1] * (side // pool) ** 2


class Dropout(nn.Dropout):
    """nn.Dropout; on a CPU with masks from 16 random bits an element, since drawing them is a quarter of a step there.

    So p is rounded to a multiple of 2⁻¹⁶.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elements are dropped in training and the others scaled up, in any shape."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()]
        kept = bits >= round(self.p * 2**16) - 2**15
        mask = kept.to(x.dtype).mul_(1 / (1 - self.p) if self.p < 1 else 0.0)  # a third of the time of where
        return x * mask.as_strided(x.shape, torch.empty_like(x).stride())  # in the order that x has in memory


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=False),
    )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs, 3, 1)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) to (n, outputs, height / stride, width / stride)."""
        return torch.relu(self.residual(x) + self.shortcut(x))


AnyNetworkConfig: TypeAlias = MLPConfig | AlexNetConfig | ResNet18Config
NetworkConfig = Annotated[AnyNetworkConfig, Field(discriminator="name")]


class OneHead(nn.ModuleList):
    """The head that all tasks share: `heads[t]` is the same for every t."""

    def __getitem__(self, task: Any) -> Any:
        return super().__getitem__(0 if isinstance(task, int) else task)


class MultiHeadNetwork(nn.Module):
    """`features` shared by all tasks, and `heads[t]`, the linear classifier of task t, or one of all (`one_head`)."""

    of_each_task: ClassVar[tuple[str, ...]] = ("heads",)
    """Its lists of modules that have one for each task."""

    def __init__(
        self, features: nn.Module, width: int, classes: list[int], *, bias: bool = True, one_head: bool = False
    ) -> None:
        super().__init__()
        self.features = features
        self.outputs = classes
        self.one_head = one_head
        heads = [nn.Linear(width, n, bias) for n in ([max(classes)] if one_head else classes)]
        self.heads = OneHead(heads) if one_head else nn.ModuleList(heads)
        self.statistics_frozen = False
        """Whether batch-norm layers normalise by the statistics they have, even in training: after the first task, but
        for methods that say otherwise."""

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Logits of `task`: (n, channels, height, width) to (n, classes of the task)."""
        logits: Tensor = self.heads[task](self.features(x))
        return logits

    @property
    def shared(self) -> nn.Module:
        """What all tasks use: the features, or with one head the whole network."""
        return self if self.one_head else self.features

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the shared linear and convolution layers, by name; without biases."""
        return {name: layer.weight for name, layer in named_layers(self.shared).items()}

    @property
    def norms(self) -> dict[nn.Module, nn.Module]:
        """The batch-norm that comes right after a layer, by the layer."""
        rows = [module for module in self.features.modules() if isinstance(module, nn.Sequential)]
        return {a: b for row in rows for a, b in pairwise(row) if isinstance(b, BATCH_NORMS)}

    @property
    def in_a_row(self) -> bool:
        """Whether each layer of the features gets what the one before it gives, and nothing else."""
        return all(not list(module.children()) for module in self.features.children())

    def numbers(self) -> tuple[int, list[int]]:
        """How many numbers the shared part holds, and how many each task adds."""
        shared, by_task = 0, [0] * len(self.outputs)
        for name, value in self.state_dict().items():
            kind, *place = name.split(".")
            if kind in self.of_each_task:
                by_task[int(place[0])] += value.numel()
            else:
                shared += value.numel()
        return shared, by_task

    @property
    def batch_statistics(self) -> bool:
        """Whether a prediction depends on the batch that it is made in."""
        return any(isinstance(m, BATCH_NORMS) and m.running_mean is None for m in self.features.modules())

    def train_weights_alone(self) -> None:
        """Of what is shared, keep the biases and batch-norm's parameters as they are from now on."""
        weights = set(self.weights.values())
        for parameter in self.shared.parameters():
            if parameter not in weights:
                parameter.requires_grad_(False)

    def logits_of(self, hidden: Tensor, tasks: Tensor) -> Tensor:
        """Logits of each row's own task, by `features`' output (n, width) and numbers of tasks (n,).

        (n, most classes of a task); a task of fewer classes has -inf for those that it lacks.
        """
        if self.one_head:
            logits: Tensor = self.heads[0](hidden)
            return logits
        outputs = [head(hidden) for head in self.heads]  # all, since shapes must not depend on numbers on the device
        most = max(output.shape[1] for output in outputs)
        logits = hidden.new_full((len(hidden), most), -math.inf)
        for task, output in enumerate(outputs):
            padded = F.pad(output, (0, most - output.shape[1]), value=-math.inf)
            logits = torch.where((tasks == task).unsqueeze(1), padded, logits)
        return logits

    def parameters_of(self, task: int) -> dict[str, nn.Parameter]:
        """Of the features and of the head of `task`, by name; there may be no such task."""
        named = ((name, name.split("."), p) for name, p in self.named_parameters())
        head = "0" if self.one_head else str(task)
        return {name: p for name, parts, p in named if parts[0] == "features" or parts[1:2] == [head]}

    def freeze_statistics(self) -> None:
        """Keep the running statistics of batch-norm layers as they are from now on (paper: after the first task)."""
        self.statistics_frozen = True
        self.train(self.training)

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Running statistics of batch-norm layers, by name."""
        return dict(self.features.named_buffers())

    @torch.no_grad()
    def measure_statistics(self, batches: Iterable[Tensor]) -> None:
        """Make running statistics the means of these batches'. The network is in evaluation mode then."""
        norms = {m: m.momentum for m in self.features.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats}
        self.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: each batch counts as much
        for x in batches if norms else ():
            self.features(x)
        for norm, momentum in norms.items():
            norm.momentum, norm.training = momentum, False

    def normalised_by(self, values: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """While this is open, batch-norm layers have what of these are `statistics`, by name."""
        return holding(self.features, {name: values[name] for name in values.keys() & self.statistics.keys()})

    def train(self, mode: bool = True) -> "MultiHeadNetwork":
        """Training mode, but for frozen batch-norm layers."""
        super().train(mode)
        if self.statistics_frozen:
            for module in self.features.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@contextmanager
def holding(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """While this is open, these parameters and buffers of a module, by name, have other values."""
    state = module.state_dict()
    present = copied({name: state[name] for name in values})
    module.load_state_dict(values, strict=False)
    try:
        yield
    finally:
        module.load_state_dict(present, strict=False)


def build_network(
    settings: AnyNetworkConfig, shape: tuple[int, ...], classes: list[int], *, one_head: bool = False
) -> MultiHeadNetwork:
    """A network for images of `shape` and tasks of so many classes, initialised from torch's global generator.

    Raises BlipError where it is larger than this machine's memory.
    """

    def build() -> MultiHeadNetwork:
        return MultiHeadNetwork(
            *settings.features(shape), classes, bias=getattr(settings, "bias", True), one_head=one_head
        )

    with torch.device("meta"):  # shapes alone
        count = sum(p.numel() for p in build().parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 2 * 4 * count > memory:
        raise BlipError(
            f"network: {count:,} parameters and their gradients take {8 * count / 2**30:,.0f} GiB, "
            f"this machine has {memory / 2**30:,.0f}"
        )
    return build()


class FeaturesConfig(Protocol):
    """What any network's configuration can do."""

    def features(self, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Layers from inputs of `shape` to a vector, and its width."""


def largest_product(settings: FeaturesConfig, shape: tuple[int, ...], batch_size: int) -> int:
    """Multiplications in the largest linear layer of a network; its convolutions are other kinds of products."""
    with torch.device("meta"):  # shapes alone
        features, _ = settings.features(shape)
    return batch_size * max((m.weight.numel() for m in features.modules() if isinstance(m, nn.Linear)), default=0)
