"""Frozen features: no forgetting, and no learning beyond the heads."""

from blip.methods.base import Method, register


@register
class FrozenSGD(Method):
    """SGD with the features frozen after the first task; only the heads go on learning."""

    name = "sgd-frozen"

    def before_task(self, task: int) -> None:
        if task:
            self.network.features.requires_grad_(False)
