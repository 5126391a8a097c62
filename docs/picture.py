"""The README's picture, from recorded runs: python docs/picture.py docs/picture.png"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blip.results import load_runs
from blip.results.loading import Runs
from blip.results.metrics import capacity
from blip.results.style import STYLE, method_looks, sequence

RUNS = Path(__file__).parents[1] / "results" / "recorded" / "cifar100" / "runs"
TITLES = {"sgd": "Fine-tuning forgets", "blip": "BLIP keeps what it learned"}
SIZE, DPI = (9.6, 2.9), 150


def draw(runs: Runs) -> Figure:
    """Accuracy on every task after each task, by fine-tuning and by BLIP, and the bits that tasks froze; over seeds."""
    with mpl.rc_context(STYLE | {"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold"}):
        figure, axes = plt.subplots(1, 3, figsize=SIZE, layout="constrained")
        tasks = range(1, len(runs.tasks) + 1)
        for ax, method in zip(axes, TITLES, strict=False):
            _accuracies(ax, runs, method)
        _bits(axes[2], runs)
        for ax in axes:
            ax.set_xticks(tasks)
            ax.set_xlabel("tasks learned")
        axes[1].sharey(axes[0])
        axes[1].set_ylabel("")
        axes[0].set_ylim(37, 80)
        return figure


def _accuracies(ax: Axes, runs: Runs, method: str) -> None:
    scores = runs.raw_scores().query("method == @method")
    means = 100 * scores.groupby(["task", "task_learned"])["score"].mean().unstack(0)
    means.index += 1
    for task, colour in zip(means, sequence(len(means.columns)), strict=True):
        ax.plot(means.index, means[task], color=colour, linewidth=1, marker="o", markersize=2)
    bold = method_looks([method])[method].colour
    ax.plot(means.index, means.mean(axis=1), color=bold, linewidth=2.5)
    ax.annotate("mean", (10, means.iloc[-1].mean()), (4, 0), "data", "offset points", color=bold, va="center")
    ax.annotate("task 1", (1, means.iloc[0, 0]), (2, 9), "data", "offset points", color="0.3", size=8)
    ax.set_title(TITLES[method], color=bold)
    ax.set_ylabel("accuracy on each task, %")


def _bits(ax: Axes, runs: Runs) -> None:
    frozen = 100 * capacity(runs.tables["bits"]).groupby("task_learned").mean()
    new = frozen.diff().fillna(frozen)
    tasks = frozen.index + 1
    ax.bar(tasks, 100, width=1, color="0.94")
    for task, colour in zip(frozen.index, sequence(len(frozen)), strict=True):
        bottom = frozen[task] - new[task]
        ax.bar(tasks[task:], new[task], bottom=bottom, width=1, color=colour)
    ax.text(5.5, 82, "free for later tasks", ha="center", color="0.4")
    ax.text(7, 12, "frozen by task 1", ha="center", color="0.15")
    ax.set(xlim=(0.5, len(frozen) + 0.5), ylim=(0, 100), ylabel="bits of all parameters, %")
    ax.set_title("… by freezing bits")


def main() -> None:
    """Draw it into the file that is named."""
    draw(load_runs([RUNS])).savefig(sys.argv[1], dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
