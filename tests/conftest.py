"""What tests share: tiny networks, small image folders, and the real weights and photos where there are any."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ipvit
from helpers.command_line import NETWORK
from helpers.tiny import tiny_model, write_images

CHROMIUM = Path("/usr/bin/chromium")

torch.set_num_threads(1)  # several test processes share few cores
os.fsync = lambda _: None  # no machine fails during a test, and a disk's answer takes a tenth of the time


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is collected out of the search for garbage: it stays, and to search all of it takes a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
        sys.dont_write_bytecode = True  # from here on: folders hold what a test put there, and nothing beside it


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


@pytest.fixture
def model() -> ipvit.Model:
    return tiny_model()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


@pytest.fixture
def small_sets(monkeypatch) -> None:
    """Let the recipes' names mean 64 training and 30 validation images."""
    from ipvit.data.synthetic.trifeature import Trifeature
    from ipvit.training import start  # takes a moment to import

    monkeypatch.setattr(
        start,
        "open_data",
        lambda name, size, part: (
            Trifeature("natural", "train" if name.endswith("train") else "val", 64, size)
            if name.endswith("train")
            else Trifeature("natural", "val", 30, size)
        ),
    )
