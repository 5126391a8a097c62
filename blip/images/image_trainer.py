"""One loop for every classification method: train, restore the best epoch, let the method consolidate, test."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from blip.config import Experiment, method_settings
from blip.data import Examples, TaskSequence
from blip.errors import BlipError
from blip.graphs import GraphedStep
from blip.methods import METHODS
from blip.networks import build_network
from blip.progress import Progress
from blip.record import TABLES, timed
from blip.seeding import address, generator
from blip.training.checkpoint import Checkpoint

Row: TypeAlias = dict[str, Any]

EVALUATION_BATCH = 500
SECONDS_BETWEEN_CHECKPOINTS = 10.0
"""An epoch shorter than this is sooner redone than written and synced to disk."""


class Trainer:
    """One run: an experiment's task sequence learned by one method with one seed.

    `tables` collects what is measured, as rows: accuracy, history, cost, and what the method adds. All tensors live on
    `device`. Every random draw is addressed by (seed, purpose, task, epoch), so a run that goes on from a checkpoint
    ends with the same numbers as one that was never stopped (same machine, libraries and threads).
    """

    def __init__(
        self,
        experiment: Experiment,
        method: str,
        seed: int,
        sequence: TaskSequence,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        cuda_graphs: bool = True,
        seconds_between_checkpoints: float | None = None,
    ) -> None:
        self.config = experiment.training
        self.seed = seed
        self.sequence = sequence
        self.checkpoint = checkpoint
        self.device = device
        if seconds_between_checkpoints is None:
            seconds_between_checkpoints = SECONDS_BETWEEN_CHECKPOINTS
        self.seconds_between_checkpoints = seconds_between_checkpoints
        torch.manual_seed(address(seed, "network"))
        self.network = build_network(experiment.network_of(method), sequence.image_shape, sequence.class_counts)
        self.network.to(device)
        settings = method_settings(method, experiment.methods[method], experiment.name)
        self.method = METHODS[method](self.network, settings, seed)
        self.cuda_graphs = cuda_graphs and device.type == "cuda" and self.method.cuda_graphs
        self.tables: dict[str, list[Row]] = {name: [] for name in TABLES}
        self.task, self.epoch = 0, 0
        """The task being learned, and how many of its epochs are done."""
        self.best_loss = math.inf
        self.best_weights = self._weights()
        self._seconds: dict[str, float] = {}
        self._total_loss = torch.zeros((), device=device)
        self._last_saved = time.monotonic()

    def run(self, title: str) -> None:
        """Learn all tasks, from the checkpoint on where there is one."""
        saved = self.checkpoint.load(self.device)
        with Progress(title, len(self.sequence), self.config.epochs) as progress:
            if saved:
                self._restore(saved)
                progress.say(f"going on at task {self.task + 1}, epoch {self.epoch + 1}")
            while self.task < len(self.sequence):
                self._learn_task(progress, saved["optimizer"] if saved else None)
                saved = None

    def _learn_task(self, progress: Progress, optimizer_state: Row | None) -> None:
        task = self.method.data_for(self.task, self.sequence)
        if self.task > 0:
            self.network.freeze_statistics()
        self.method.before_task(self.task)
        optimizer, schedule = self._optimizer(optimizer_state)
        step = self._step(optimizer, task.train)
        lr = optimizer.param_groups[0]["lr"]
        while self.epoch < self.config.epochs and lr >= self.config.lr_min:
            with timed(self._seconds, "train"):
                train_loss = self._train_epoch(step, task.train)
            with timed(self._seconds, "evaluate"):
                loss, accuracy = self.evaluate(task.valid, self.task, penalty=True)
            self._record_epoch(lr, train_loss, loss, accuracy)
            schedule.step(loss)
            if optimizer.param_groups[0]["lr"] < lr:
                optimizer.state.clear()  # published: a fresh optimizer at every new learning rate
                step = self._step(optimizer, task.train)
                lr = optimizer.param_groups[0]["lr"]
            self.epoch += 1
            progress.epoch(self.task, self.epoch - 1, loss, accuracy)
            self._save(optimizer, schedule)
        self._finish_task(task.train, progress)

    def _optimizer(self, state: Row | None) -> tuple[SGD, ReduceLROnPlateau]:
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        config = self.config
        optimizer = SGD(parameters, lr=config.lr, momentum=config.momentum)
        # `patience` counts the bad epochs that pass before the one that lowers the learning rate.
        schedule = ReduceLROnPlateau(
            optimizer,
            factor=1 / config.lr_factor,
            patience=config.lr_patience - 1,
            threshold=0,
            eps=0,
        )
        if state:
            optimizer.load_state_dict(state["sgd"])
            schedule.load_state_dict(state["schedule"])
        return optimizer, schedule

    def _step(self, optimizer: SGD, train: Examples) -> Callable[[Tensor], None]:
        """One training step on the examples at an index, for as long as task and learning rate stay."""
        step = partial(self._train_step, optimizer, train)
        return GraphedStep(step, self.config.batch_size, self.device) if self.cuda_graphs else step

    def _train_step(self, optimizer: SGD, train: Examples, index: Tensor) -> None:
        loss, _, labels = self._loss(train, index, self.task, penalty=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.method.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.method.clip_norm)
        optimizer.step()
        self.method.after_step()
        self._total_loss += loss.detach() * len(labels)

    def _train_epoch(self, step: Callable[[Tensor], None], train: Examples) -> float:
        """One pass over the training examples; returns the mean loss."""
        self.network.train()
        torch.manual_seed(address(self.seed, "dropout", self.task, self.epoch))
        self._total_loss.zero_()
        for index in train.indices(self.config.batch_size, generator(self.seed, "shuffle", self.task, self.epoch)):
            step(index)
        return float(self._total_loss) / len(train)

    def _loss(self, examples: Examples, index: Tensor, task: int, *, penalty: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss of the examples at `index`, of `task` where they do not say which, their logits and labels."""
        x, labels = examples.batch(index)
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
        for index in examples.indices(EVALUATION_BATCH):
            loss, logits, labels = self._loss(examples, index, task, penalty=penalty)
            total += loss * len(labels)
            correct += (logits.argmax(1) == labels).sum()
        return float(total) / len(examples), int(correct) / len(examples)

    def _record_epoch(self, lr: float, train_loss: float, loss: float, accuracy: float) -> None:
        if not math.isfinite(train_loss) or not math.isfinite(loss):
            raise BlipError(
                f"task {self.task}, epoch {self.epoch}: the loss is {train_loss} in training and {loss} in "
                f"validation; expected finite numbers: try a lower training.lr (now {lr:g})"
            )
        self._record("history", self.task, self.epoch, lr, train_loss, loss, accuracy)
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, self._weights()

    def _finish_task(self, train: Examples, progress: Progress) -> None:
        self.network.load_state_dict(self.best_weights)
        self.network.freeze_statistics()
        with timed(self._seconds, "consolidate"):
            self.method.after_task(self.task, train)
        with timed(self._seconds, "evaluate"):
            for t in range(self.task + 1):
                test = self.sequence.test(t)
                with self.method.as_seen_by(t):
                    loss, accuracy = self.evaluate(test, t)
                self._record("accuracy", self.task, t, accuracy, loss, len(test))
        for table, rows in self.method.measurements().items():
            self.tables[table].extend({"task_learned": self.task, **row} for row in rows)
        for phase, seconds in self._seconds.items():
            self._record("cost", self.task, phase, round(seconds, 3))
        learned = [r["accuracy"] for r in self.tables["accuracy"] if r["task_learned"] == self.task]
        progress.say(
            f"task {self.task + 1}/{len(self.sequence)} ({self.sequence.names[self.task]}) learned in "
            f"{self.epoch} epochs: accuracy {learned[-1]:.1%}, mean over tasks so far "
            f"{sum(learned) / len(learned):.1%}"
        )
        self.task, self.epoch, self.best_loss, self._seconds = self.task + 1, 0, math.inf, {}
        self.best_weights = self._weights()
        self._save(None, None)

    def _record(self, table: str, *values: float | int | str) -> None:
        self.tables[table].append(dict(zip(TABLES[table], values, strict=True)))

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def _save(self, optimizer: SGD | None, schedule: ReduceLROnPlateau | None) -> None:
        """Write a checkpoint, unless the last one is too young to be worth it."""
        if time.monotonic() - self._last_saved < self.seconds_between_checkpoints:
            return
        with timed(self._seconds, "checkpoint"):
            state = None
            if optimizer and schedule:
                state = {"sgd": optimizer.state_dict(), "schedule": schedule.state_dict()}
            self.checkpoint.save(
                {
                    "task": self.task,
                    "epoch": self.epoch,
                    "best_loss": self.best_loss,
                    "network": self.network.state_dict(),
                    "best_weights": self.best_weights,
                    "method": self.method.state_dict(),
                    "optimizer": state,
                    "tables": self.tables,
                    "seconds": self._seconds,
                }
            )
        self._last_saved = time.monotonic()

    def _restore(self, saved: Row) -> None:
        self.task, self.epoch, self.best_loss = saved["task"], saved["epoch"], saved["best_loss"]
        self.network.load_state_dict(saved["network"])
        self.best_weights = saved["best_weights"]
        self.method.load_state_dict(saved["method"])
        self.tables, self._seconds = saved["tables"], saved["seconds"]
