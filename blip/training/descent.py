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
        self.looks = self.rate.device.type == "cpu"
        """Whether `clip` looks at the norm, to leave gradients alone that are small enough; on a GPU looking waits."""

    @torch.no_grad()
    def clip(self, largest: float) -> None:
        """Scale the gradients down where their norm over all parameters is larger; a GPU is not waited for.

        `torch.nn.utils.clip_grad_norm_` bit by bit, in a third of its time on small networks.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        scale = (largest / (norm + 1e-6)).clamp_(max=1.0)
        if not self.looks or scale != 1:
            torch._foreach_mul_(gradients, scale)

    @torch.no_grad()
    def step(self) -> None:
        """One step, of the parameters that have a gradient."""
        moved: list[Tensor] = []
        gradients: list[Tensor] = []
        for parameter in self.parameters:
            if parameter.grad is not None:
                moved.append(parameter)
                gradients.append(parameter.grad)
                parameter.grad = None
        if moved:
            torch._foreach_addcmul_(moved, gradients, [self.rate] * len(moved), -1)


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
