"""Plain stochastic gradient descent, and the schedule of its learning rate.

torch.optim has both, but an optimizer of its own imports PyTorch's compiler, a second in every process, and on small
networks its bookkeeping takes up to half of a step.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class GradientDescent:
    """θ ← θ - η·g for all parameters that train; a step drops the gradients that it used.

    The learning rate η is a tensor on the parameters' device, so that a recorded CUDA graph sees a new one.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.rate = torch.tensor(lr, device=self.parameters[0].device)

    @torch.no_grad()
    def step(self, clip_norm: float | None = None) -> None:
        """One step, of the parameters that have a gradient; scaled down where their norm is larger than `clip_norm`."""
        moved: list[Tensor] = []
        gradients: list[Tensor] = []
        for parameter in self.parameters:
            if parameter.grad is not None:
                moved.append(parameter)
                gradients.append(parameter.grad)
                parameter.grad = None
        if not moved:
            return
        if clip_norm is not None:
            clip(gradients, clip_norm)
        torch._foreach_addcmul_(moved, gradients, [self.rate] * len(moved), -1)


def clip(gradients: list[Tensor], norm: float) -> None:
    """Scale gradients down, in place, to this norm over all of them where theirs is larger.

    `torch.nn.utils.clip_grad_norm_` bit by bit, in a third of its time on small networks; on a CPU, where a look at the
    norm costs nothing, gradients that are small enough are not multiplied by 1.
    """
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    scale = (norm / (total + 1e-6)).clamp_(max=1.0)
    if scale.device.type != "cpu" or scale != 1:
        torch._foreach_mul_(gradients, scale)


@dataclass
class PatienceSchedule:
    """After `patience` epochs in a row without a lower validation loss the learning rate `lr` is divided by `factor`.

    Its fields are its state.
    """

    lr: float
    patience: int
    factor: float
    best: float = math.inf
    bad_epochs: int = 0

    def step(self, loss: float) -> None:
        """An epoch has ended with this validation loss."""
        if loss < self.best:
            self.best, self.bad_epochs = loss, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs == self.patience:
            self.lr *= 1 / self.factor
            self.bad_epochs = 0
