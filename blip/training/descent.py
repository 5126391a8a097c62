"""Plain stochastic gradient descent, and the schedule of its learning rate.

torch.optim has both, but an optimizer of its own imports PyTorch's compiler, a second in every process, and on small
networks its bookkeeping takes up to half of a step.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


class GradientDescent:
    """θ ← θ - η·g for all parameters that train; a step drops the gradients that it used.

    The learning rate η is a tensor on the parameters' device, so that a recorded CUDA graph sees a new one.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.rate = torch.tensor(lr, device=self.parameters[0].device)

    def clip(self, largest: float) -> None:
        """Scale the gradients down where their norm over all parameters is larger; a GPU is not waited for."""
        if self.rate.device.type == "cpu":
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            if float(norm + 1e-6) <= largest:  # PyTorch multiplies by 1 then
                return
        nn.utils.clip_grad_norm_(self.parameters, largest)

    @torch.no_grad()
    def step(self) -> None:
        """One step, of the parameters that have a gradient."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.addcmul_(parameter.grad, self.rate, value=-1)
                parameter.grad = None


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
