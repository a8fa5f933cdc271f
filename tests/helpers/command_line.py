"""Calling the command line, and processes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.forks import Python
from helpers.tiny import write_images
from ipvit.cli import main


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of what the command line said to stderr; it is never a traceback."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def full_disk(path: Path, data: bytes) -> None:
    """Stand in for ``write_atomic`` where nothing more can be written."""
    raise OSError(28, "No space left on device", str(path))


def measure_in(root: Path, study: str, out: str) -> Path:
    """Run a study in a folder with images, a network in net.py, and what else it needs; return the folder."""
    with contextlib.chdir(root):
        write_images(root / "images", per_class=1)
        (root / "net.py").write_text(NETWORK)
        (root / "study.yaml").write_text(study)
        assert main(["run", "study.yaml", "--out", out]) == 0
    return root


def kill_while_it_writes(
    arguments: list[str], written: Callable[[], int], more: int, seconds: float, module: str = "ipvit"
) -> None:
    """Run ``ipvit``, or a module that stands in for it, in a process of its own.

    It and its workers are killed once so many more files are written, which takes no longer than the seconds.
    """
    process = Python(["-m", module, *arguments])
    deadline = time.monotonic() + seconds
    before = written()
    try:
        while written() < before + more:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, "it has written too little for too long"
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and so have its workers
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    assert status == -signal.SIGKILL


NETWORK = """\
import torch, ipvit
from torch import nn

def make(seed=0, size=16):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 4))
    return ipvit.wrap(net, size=size, crop_pct=1.0, classes=["c0", "c1", "c2", "c3"])

def broken():
    class Broken(nn.Module):
        def forward(self, x):
            if len(x) == 2:  # well while it is tried
                return torch.zeros(2, 4)
            raise RuntimeError("broken on purpose")
    return ipvit.wrap(Broken(), size=16, crop_pct=1.0, classes=["c0", "c1", "c2", "c3"])
"""
