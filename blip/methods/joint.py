"""Joint training: nothing is there to forget."""

from dataclasses import replace

from blip.data import Task, TaskSequence
from blip.methods.base import Method, register
from blip.schema import Schema, later


@register
class Joint(Method):
    """All tasks so far together, each with its own head: the upper reference, since no image is ever given up.

    Goes on from the weights that it has. Cross-entropy of each image by its own task's head, the mean over batches that
    are drawn from all tasks, and the same over the validation images. Where a network normalises by the batch's own
    statistics, a batch is of one task, as in testing, unless `mixed`, and those of the tasks take turns at random.
    """

    name = "joint"
    supervised = True
    moves_statistics = True

    class Settings(Schema):
        at_once: bool = False
        """All tasks in one training, the first task's, and none after it: what papers print as multitask. A network
        for as many epochs as the others have for one task, where otherwise each task has all so far."""
        mixed: bool = later(False)
        """Whether batches are of all tasks even where the network normalises by the batch's own statistics."""

    def data_for(self, task: int, sequence: TaskSequence) -> Task:
        if self.settings.at_once and task > 0:
            return _nothing(sequence.task(task))
        data = sequence.tasks_until(len(sequence) - 1 if self.settings.at_once else task)
        train, valid = (replace(part, mixed=self.settings.mixed) for part in (data.train, data.valid))
        return replace(data, train=train, valid=valid)


def _nothing(task: Task) -> Task:
    """The same without images."""
    return replace(task, train=task.train.first(0), valid=task.valid.first(0))
