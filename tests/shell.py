"""The command line in this process, for tests: its exit status and what it says."""

from pathlib import Path

import pytest

import blip.training.loop
from blip.cli import main
from blip.images.image_trainer import ImageTrainer


class Shell:
    """Runs `blip …` in this process, with all folders below one."""

    def __init__(self, folder: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.config, self.capsys = folder, config, capsys
        self.data, self.runs, self.checkpoints = (folder / name for name in ("data", "runs", "checkpoints"))
        self.out = ""

    def __call__(self, *arguments: str | Path) -> tuple[int, list[str]]:
        """Exit status and lines on stderr."""
        self.capsys.readouterr()
        try:
            status: object = main([str(a) for a in arguments])
        except SystemExit as error:  # of argparse
            status = error.code
        self.out, err = self.capsys.readouterr()
        assert isinstance(status, int)
        return status, err.splitlines()

    def prepare(self, *more: str | Path) -> tuple[int, list[str]]:
        return self("data", self.config, "--raw", self.folder / "raw", "--data", self.data, *more)

    def train(self, methods: str, *more: str | Path) -> tuple[int, list[str]]:
        folders = ["--raw", self.folder / "raw", "--data", self.data, "--out", self.runs]
        return self(
            "train", self.config, "--method", *methods.split(), *folders, "--checkpoints", self.checkpoints, *more
        )

    def files(self, folder: Path) -> list[str]:
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def refused(result: tuple[int, list[str]]) -> str:
    """The one line on stderr of a command that was refused with status 2."""
    status, lines = result
    assert status == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("blip")
    assert "Traceback" not in lines[0]
    return lines[0]


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the beginning of an epoch, with a checkpoint after every one before."""
    monkeypatch.setattr(blip.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    train_epoch, done = ImageTrainer._train_epoch, iter(range(epochs))

    def interrupted(trainer: ImageTrainer, *arguments: object) -> float:
        if next(done, None) is None:
            raise KeyboardInterrupt
        return train_epoch(trainer, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageTrainer, "_train_epoch", interrupted)
