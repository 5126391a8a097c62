"""`blip doctor`: one screen, with a GPU and without."""

from types import SimpleNamespace

import pytest
import torch

from blip.cli import main


def test_a_machine_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert torch.__version__ in screen
    assert "GPU" in screen
    assert "none: training runs on the CPU" in screen
    assert len(screen.splitlines()) < 24
    assert all(len(line) < 120 for line in screen.splitlines())


def test_a_machine_with_two_gpus(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="A card", major=9, minor=0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3 * 2**30, 4 * 2**30))
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert "13.0, cuDNN 91900, driver" in screen
    assert "GPU 1" in screen
    assert "A card, 3.0 of 4.0 GiB free, compute capability 9.0" in screen
    assert "recorded as CUDA graphs" in screen
