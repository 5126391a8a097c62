"""Fine-tuning: nothing against forgetting."""

from blip.methods.base import Method, register


@register
class SGD(Method):
    """Fine-tuning with SGD, the lower baseline: nothing is done against forgetting."""

    name = "sgd"
