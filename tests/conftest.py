"""What tests share: tiny networks, small image folders, and the real weights and photos where there are any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit

CHROMIUM = Path("/usr/bin/chromium")

torch.set_num_threads(1)  # several test processes share few cores


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder with real weights and photos that IPVIT_REAL names."""
    folder = Path(os.environ.get("IPVIT_REAL", ""))
    if not os.environ.get("IPVIT_REAL") or not folder.is_dir():
        pytest.skip("IPVIT_REAL names no folder with real weights and photos")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by playwright."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


class PatchNet(nn.Module):
    """A tiny network whose answer depends on where things are: mean colour per cell, then a linear map."""

    def __init__(self, classes: int = 4, cells: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.head = nn.Linear(3 * cells * cells, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(x).flatten(1))


def tiny_model(seed: int = 0, size: int = 16, classes: int = 4, name: str = "tiny") -> ipvit.Model:
    torch.manual_seed(seed)
    return ipvit.wrap(PatchNet(classes), size=size, crop_pct=1.0, classes=[f"c{i}" for i in range(classes)], name=name)


def write_images(root: Path, per_class: int = 5, classes: int = 4, size: tuple[int, int] = (20, 24)) -> Path:
    """Write a folder of class folders c0, c1, ... with random JPEG and PNG images."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / f"c{c}").mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
            picture.save(root / f"c{c}" / f"{i:03d}.{'png' if i % 2 else 'jpg'}", quality=95)
    return root


@pytest.fixture
def model() -> ipvit.Model:
    return tiny_model()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


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
