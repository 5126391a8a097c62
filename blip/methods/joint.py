"""Joint training: nothing is there to forget."""

from blip.data import Task, TaskSequence
from blip.methods.base import Method, register


@register
class Joint(Method):
    """All tasks so far together, each with its own head: the upper reference, since no image is ever given up.

    Goes on from the weights that it has. Cross-entropy of each image by its own task's head, the mean over batches that
    are drawn from all tasks, and the same over the validation images.
    """

    name = "joint"
    games = False

    def data_for(self, task: int, sequence: TaskSequence) -> Task:
        return sequence.tasks_until(task)

    def before_task(self, task: int) -> None:
        self.network.statistics_frozen = False
