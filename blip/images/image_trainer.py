"""Classification: train, restore the best epoch, let the method consolidate, test."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from blip.data import Examples, TaskSequence
from blip.errors import BlipError, DivergedError
from blip.networks import copied
from blip.progress import Progress
from blip.record import COUNT, INDEX, LOSS, NUMBER, SHARE, Row, Table
from blip.schema import Schema
from blip.seeding import address, generator
from blip.training.descent import GradientDescent, PatienceSchedule
from blip.training.graphs import GraphedStep
from blip.training.loop import Setup, Trainer

ACCURACY = Table(
    name="accuracy",
    about="Accuracy and loss on the test images of each task so far, after learning a task.",
    columns={"task_learned": INDEX, "task": INDEX, "accuracy": SHARE, "loss": LOSS, "n": COUNT},
)
HISTORY = Table(
    name="history",
    about="Each epoch of training, and its validation. Losses are with penalties, but in training those of the weights "
    "alone are left out.",
    columns={
        "task": INDEX,
        "epoch": INDEX,
        "lr": NUMBER,
        "train_loss": LOSS,
        "valid_loss": LOSS,
        "valid_accuracy": SHARE,
    },
)


class TrainingConfig(Schema):
    """SGD with a patience schedule, the same for every method."""

    lr: PositiveFloat
    batch_size: PositiveInt
    epochs: PositiveInt
    """At most so many in each task."""
    lr_patience: PositiveInt = 5
    """After so many epochs in a row without a lower validation loss the learning rate is divided by `lr_factor`."""
    lr_factor: float = Field(default=3, gt=1)
    lr_min: PositiveFloat = 1e-4
    """A task ends when its learning rate falls below this."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights a task ends with: those of the lowest validation loss, or the last ones."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """`bfloat16` is of the shared features in training and evaluation; weights, heads, penalties and Fisher information
    are float32 then. `tf32` is of all products and convolutions on a GPU, theirs too, and float32 elsewhere."""

    @model_validator(mode="after")
    def _trains(self) -> "TrainingConfig":
        if self.lr < self.lr_min:
            raise ValueError(f"lr: expected at least lr_min ({self.lr_min:g}), found {self.lr:g}")
        return self


class ImageTrainer(Trainer):
    """One run of classification; all tensors live on the device."""

    def __init__(self, config: TrainingConfig, sequence: TaskSequence, setup: Setup) -> None:
        self.config, self.sequence = config, sequence
        super().__init__(setup, config.epochs)
        if self.network.batch_statistics and min(config.batch_size, sequence.fewest) < 2:
            raise BlipError(
                "training.batch_size, or the images of a task: expected at least 2 where batches normalise themselves"
            )
        self.best_loss = math.inf
        self.best_weights = copied(self.network.state_dict())
        # Where oneDNN wants them: a tenth less time.
        self._convolves = self.device.type == "cpu" and any(isinstance(m, nn.Conv2d) for m in self.network.modules())
        self._total_loss = torch.zeros((), device=self.device)

    def _learn(self, progress: Progress, saved: Row | None) -> None:
        task = self.method.data_for(self.task, self.sequence)
        self._train = task.train
        config = self.config
        self.best_loss, self.best_weights = math.inf, copied(self.network.state_dict())
        schedule = PatienceSchedule(config.lr, config.lr_patience, config.lr_factor)
        if saved:
            with self.checkpoint.restoring():
                self.best_loss, self.best_weights = saved["best_loss"], saved["best_weights"]
                schedule = PatienceSchedule(**saved["schedule"])
        descent = GradientDescent(self.method.trained_parameters(), schedule.lr)
        step = self._step(descent, task.train)
        while len(task.train) and self.done < config.epochs and schedule.lr >= config.lr_min:
            with self._timed("train"):
                train_loss = self._train_epoch(step, task.train)
            with self._timed("evaluate"):
                loss, accuracy = self.evaluate(task.valid, self.task, penalty=True)
            self._record_epoch(schedule.lr, train_loss, loss, accuracy)
            schedule.step(loss)
            descent.rate.fill_(schedule.lr)
            self.done += 1
            text = f"{self._place()}, epoch {self.done}, loss {loss:.4f}, accuracy {accuracy:.1%}"
            progress.advance(self.task * self.units + self.done, text)
            self._save(
                {
                    "best_loss": self.best_loss,
                    "best_weights": self.best_weights,
                    "schedule": asdict(schedule),
                }
            )
        if config.keep == "best":
            self.network.load_state_dict(self.best_weights)
        if not self.method.moves_statistics:
            self.network.freeze_statistics()

    def _restore(self, saved: Row) -> None:
        super()._restore(saved)
        if self.task > 0 and not self.method.moves_statistics:
            self.network.freeze_statistics()

    def _examples(self) -> Examples:
        return self._train

    def _trained(self) -> int:
        return self.done

    def _test(self) -> str:
        accuracies = []
        for t in range(self.task + 1):
            test = self.sequence.test(t)
            with self._timed("evaluate"), self.method.as_seen_by(t):
                loss, accuracy = self.evaluate(test, t)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"task {self.task}: learned, but then its loss is {loss}: expected a finite number: try other "
                    f"settings of methods.{self.method.name}"
                )
            self._record(ACCURACY, self.task, t, accuracy, loss, len(test))
            accuracies.append(accuracy)
        mean = sum(accuracies) / len(accuracies)
        return f"accuracy {accuracies[-1]:.1%}, mean over tasks so far {mean:.1%}{self._forgotten(accuracies)}"

    def _forgotten(self, accuracies: list[float]) -> str:
        """How the accuracy on earlier tasks has changed since each was learned, in words; empty after the first."""
        rows = self.tables[ACCURACY.name]
        learned = [row["accuracy"] for row in rows if row["task"] == row["task_learned"]]
        changes = [now - then for now, then in zip(accuracies[:-1], learned, strict=False)]
        return f", on earlier ones {100 * sum(changes) / len(changes):+z.1f} points since learned" if changes else ""

    def _step(self, descent: GradientDescent, train: Examples) -> Callable[[Tensor], None]:
        """One training step on the examples at an index, for as long as the task stays."""
        step = partial(self._train_step, descent, train)
        return GraphedStep(step, self.config.batch_size, self.device) if self.cuda_graphs else step

    def _train_step(self, descent: GradientDescent, train: Examples, index: Tensor) -> None:
        loss, _, labels = self._loss(train, index, self.task, penalty=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.method.before_step()
        if quadratic := self.method.quadratic_penalty():
            quadratic.add_gradients()
        if self.method.clip_norm is not None:
            descent.clip(self.method.clip_norm)
        descent.step()
        self.method.after_step()
        self._total_loss += loss.detach() * len(labels)

    def _train_epoch(self, step: Callable[[Tensor], None], train: Examples) -> float:
        """One pass over the training examples; returns the mean loss."""
        self.network.train()
        torch.manual_seed(address(self.seed, "dropout", self.task, self.done))
        self._total_loss.zero_()
        random = generator(self.seed, "shuffle", self.task, self.done)
        batches = train.indices(self.config.batch_size, random, batch_statistics=self.network.batch_statistics)
        self.method.before_epoch(len(batches))
        for index in batches:
            step(index)
        return float(self._total_loss) / len(train)

    def _loss(self, examples: Examples, index: Tensor, task: int, *, penalty: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss of the examples at `index`, of `task` where they do not say which, their logits and labels."""
        x, labels = examples.batch(index)
        if self._convolves:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.config.precision == "bfloat16":
            with torch.autocast(self.device.type, torch.bfloat16):
                hidden = self.network.features(x).float()
        else:
            hidden = self.network.features(x)
        if examples.tasks is None:
            logits = self.network.heads[task](hidden)
        else:
            logits = self.network.logits_of(hidden, examples.tasks.index_select(0, index))
        loss = F.cross_entropy(logits, labels)
        extra = self.method.penalty(x, hidden) if penalty else None
        return loss if extra is None else loss + extra, logits, labels

    @torch.no_grad()
    def evaluate(self, examples: Examples, task: int, *, penalty: bool = False) -> tuple[float, float]:
        """Mean loss (with the method's penalty if asked for) and accuracy in [0, 1] on `examples` of `task`."""
        self.network.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        size, order, batch_statistics = examples.batch_size, None, self.network.batch_statistics
        if batch_statistics:  # which must not be those of one class, as where images lie class by class
            size, order = self.config.batch_size, generator(self.seed, "evaluation", task)
        for index in examples.indices(size, order, batch_statistics=batch_statistics):
            loss, logits, labels = self._loss(examples, index, task, penalty=penalty)
            total += loss * len(labels)
            correct += (logits.argmax(1) == labels).sum()
        quadratic = self.method.quadratic_penalty() if penalty else None
        more = float(quadratic.value()) if quadratic else 0.0
        return float(total) / len(examples) + more, int(correct) / len(examples)

    def _record_epoch(self, lr: float, train_loss: float, loss: float, accuracy: float) -> None:
        if not math.isfinite(train_loss) or not math.isfinite(loss):
            strength = getattr(self.method.settings, "strength", None)
            strength = strength if isinstance(strength, int | float) else 0
            named = f" or methods.{self.method.name}.strength (now {strength:g})" if strength else ""
            raise DivergedError(
                f"task {self.task}, epoch {self.done}: the loss is {train_loss} in training and {loss} in "
                f"validation; expected finite numbers: try a lower training.lr (now {lr:g}){named}"
            )
        self._record(HISTORY, self.task, self.done, lr, train_loss, loss, accuracy)
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, copied(self.network.state_dict())
