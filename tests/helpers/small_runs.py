"""Small studies of occlusion in memory."""

import dataclasses
from typing import ClassVar

import numpy as np
import torch

import ipvit
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.base import Condition, Experiment, Records

CLASSES = [f"c{i}" for i in range(4)]


def small_occlusion(**changes) -> ipvit.Occlusion:
    return ipvit.Occlusion(**{"levels": (0, 0.3, 0.5, 0.9), "runs": 2, "grid": "4x4"} | changes)


def photos(n: int = 30, seed: int = 0) -> MemoryDataset:
    return MemoryDataset(_pixels(n, seed), np.arange(n) % 4, CLASSES, ids=[f"photo {i}" for i in range(n)])


def _pixels(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def told_by(model: ipvit.Model, n: int = 30) -> MemoryDataset:
    """Return photos labelled by what a model says of them, so that it is right on all as they are."""
    pixels = _pixels(n)
    with torch.no_grad():
        labels = model(pixels.float() / 255).argmax(dim=1).numpy()
    return MemoryDataset(pixels, labels, CLASSES, ids=[f"photo {i}" for i in range(n)])


@dataclasses.dataclass(frozen=True)
class Number(Condition):
    number: int


class Picky(Experiment):
    """Fails on some of its conditions."""

    name: ClassVar[str] = "picky"
    title: ClassVar[str] = "Picky"
    reproduces: ClassVar[str] = "nothing"
    question: ClassVar[str] = "Which?"
    bad: tuple[int, ...] = ()
    count: int = 5

    def conditions(self, model):
        return [Number(i) for i in range(self.count)]

    def measure(self, model, batch):
        for condition in batch.conditions:
            if condition.number in self.bad:
                raise RuntimeError(f"number {condition.number % 2}\nis bad")
            yield Records(condition, {"correct": torch.ones(len(batch), dtype=torch.bool)})

    def tables(self, records):
        return {"picky": records.group_by("model", "number").len()}
