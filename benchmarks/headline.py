"""A training step of mnist5 now, against the one before oneDNN and our own gradient descent; and BLIP's against SGD's.

In the loop itself: batches picked from uint8 images, loss, backward, update, the method's hooks. Random images of the
size of MNIST's; how long a step takes does not depend on them.
"""

import timing
import torch
import torch.nn.functional as F
from overhead import CONFIG
from tasks import at_task

from blip.config import load_experiment
from blip.training.descent import GradientDescent
from blip.training.products import DEFAULT, computed_by

PAIRS = 21


def now(method: str) -> timing.Work:
    """STEPS of the loop's training steps in a later task."""
    trainer = at_task(method, 2, tasks=5)
    train = trainer.sequence.task(1).train
    step = trainer._step(GradientDescent(trainer.method.trained_parameters(), 0.01), train)
    return lambda: trainer._train_epoch(step, train)


def before(method: str) -> timing.Work:
    """The same steps with PyTorch's default library and its own SGD."""
    trainer = at_task(method, 2, tasks=5)
    train = trainer.sequence.task(1).train
    optimizer = torch.optim.SGD(trainer.network.parameters(), lr=0.01)
    size = load_experiment(CONFIG).training.batch_size

    def work() -> None:
        total = torch.zeros(())
        with computed_by(DEFAULT):
            for index in train.indices(size, torch.Generator().manual_seed(0)):
                x, labels = train.batch(index)
                loss = F.cross_entropy(trainer.network(x, 1), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                trainer.method.after_step()
                total += loss.detach() * len(labels)

    return work


if __name__ == "__main__":
    timing.main()
    for method in ("sgd", "blip"):
        ratio = timing.paired_ratio(before(method), now(method), PAIRS, 1)
        timing.report(f"mnist5, `{method}`: step before / now", ratio, 1.5, PAIRS, at_least=True)
    ratio = timing.paired_ratio(now("blip"), now("sgd"), PAIRS, 1)
    what = "mnist5: step of `blip` in later tasks / of `sgd`"
    timing.report(what, ratio, 1.15, PAIRS, "1.05: the clamp's two tensors have to be read")
