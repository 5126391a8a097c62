"""A method in a training loop that knows nothing of methods, such as Stable-Baselines3's own PPO.

    ppo = PPO(GamePolicy, environments, policy_kwargs={"network": network, "task": 0})
    method.before_task(0)
    with attached(method, ppo.policy.optimizer):
        ppo.learn(steps)
    method.after_task(0, examples)

`PublishedPPO`, with which experiments train, asks the method by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from blip.methods import Method


class _Tied(torch.autograd.Function):
    """The first argument as it is; whoever differentiates a loss of it gets the second one's gradient as well."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, penalty: Tensor) -> Tensor:
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones((), dtype=torch.float32)


@contextmanager
def attached(method: Method, optimizer: Optimizer) -> Iterator[None]:
    """Let such a loop call `before_step` and `after_step` and learn with the method's penalties, while the block runs.

    Their gradient is there with the loss's after `backward`, so both are clipped together. It comes through
    the output of the features, once for each of their calls that is differentiated. How far gradients are clipped is
    the loop's business: `method.clip_norm` is not looked at, and `before_step` comes after it, with the penalties' part
    in the gradients.
    """

    def add_penalty(_: nn.Module, inputs: tuple[Tensor, ...], hidden: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        quadratic = method.quadratic_penalty()
        penalties = [method.penalty(inputs[0], hidden), quadratic.value() if quadratic else None]
        for penalty in penalties:
            hidden = hidden if penalty is None else _Tied.apply(hidden, penalty)
        return hidden

    handles = [
        method.network.features.register_forward_hook(add_penalty),
        optimizer.register_step_pre_hook(lambda *_: method.before_step()),
        optimizer.register_step_post_hook(lambda *_: method.after_step()),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
