"""Tiny networks and small image folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import ipvit


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
