"""What tests share: tiny networks, small image folders, and the real weights and photos where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit

torch.set_num_threads(1)  # several test processes share few cores


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder with real weights and photos that IPVIT_REAL names."""
    folder = Path(os.environ.get("IPVIT_REAL", ""))
    if not os.environ.get("IPVIT_REAL") or not folder.is_dir():
        pytest.skip("IPVIT_REAL names no folder with real weights and photos")
    return folder


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
