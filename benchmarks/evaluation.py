"""Evaluation of mnist5's training images, as after every epoch, against its products alone: target ≤ 1.15 ×."""

import timing
import torch
import torch.nn.functional as F
from overhead import TRAIN
from tasks import at_task

PAIRS = 15


if __name__ == "__main__":
    timing.main()
    trainer = at_task("blip", 2, tasks=5, train=TRAIN)
    examples = trainer.sequence.task(1).train
    layers = [(layer.weight, layer.bias) for layer in (trainer.network.features[1], trainer.network.heads[1])]  # type: ignore[index]
    parts = [x.flatten(1) for x, _ in examples.batches(examples.batch_size)]

    @torch.no_grad()
    def products() -> None:
        for x in parts:
            for weight, bias in layers:
                x = F.linear(x, weight, bias)

    ratio = timing.paired_ratio(lambda: trainer.evaluate(examples, 1, penalty=True), products, PAIRS, 1)
    timing.report("mnist5: evaluation / its products alone", ratio, 1.15, PAIRS)
