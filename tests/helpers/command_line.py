"""Calling the command line, and processes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of what the command line said to stderr; it is never a traceback."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def full_disk(path: Path, data: bytes) -> None:
    """Stand in for ``write_atomic`` where nothing more can be written."""
    raise OSError(28, "No space left on device", str(path))


def kill_while_it_writes(arguments: list[str], written: Callable[[], int], more: int, seconds: float) -> None:
    """Run ``ipvit`` in a process of its own, and kill it and its workers once so many more files are written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ipvit", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + seconds
    before = written()
    while written() < before + more and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
