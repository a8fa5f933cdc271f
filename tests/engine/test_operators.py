"""How many operators a condition queues on a GPU beside the network's: the processor's work, whatever the batch.

No GPU is needed to count them: tensors have shapes and devices, and nothing in them.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import fake_tensor

import ipvit
from helpers.waits import CUDA, Waits, no_gpu, put_on_a_device_that_is_not_there
from ipvit.api import bind_context
from ipvit.core.queued.deferred import deferred
from ipvit.experiments.base import Batch
from ipvit.experiments.registry import make_experiment

OCCLUSION: dict[str, Any] = {"levels": (0.3, 0.6), "runs": 2, "grid": "8x8"}
MOST = {
    "accuracy": ("accuracy", {}, 105),
    "occlusion": ("occlusion", OCCLUSION, 70),
    "single pixels": ("occlusion", OCCLUSION | {"grid": "32x32"}, 70),
    "noise": ("occlusion", OCCLUSION | {"fill": "noise"}, 590),
    "object": ("occlusion", {"modes": ("object",), "levels": (0.3, 0.6)}, 95),
    "shuffle": ("shuffle", {"grids": ("4x4",), "runs": 2}, 80),
    "position": ("position", {}, 60),
}
"""Experiment, settings, operators a condition at most, on average: one that is clean has some sixty more."""


class MeanColour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


@pytest.mark.parametrize("images", [4, 64])
@pytest.mark.parametrize("title", MOST)
def test_a_condition_queues_no_more_than_so_many_operators(title, images, monkeypatch):
    name, settings, most = MOST[title]
    classes = [f"c{i}" for i in range(10)]
    model = ipvit.wrap(MeanColour(), size=32, crop_pct=1.0, classes=classes)
    masks = np.zeros((4, 32, 32), np.uint8)
    data = ipvit.MemoryDataset(np.zeros((4, 3, 32, 32), np.uint8), np.arange(4), classes, masks=masks)
    measurement = make_experiment(name, settings).bind([model], data, bind_context())
    assert model.capabilities  # they are tried out, for which tensors need content
    conditions = tuple(measurement.conditions(model))
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)
    with no_gpu():
        put_on_a_device_that_is_not_there(model)
        batch = Batch(
            images=torch.empty(images, 3, 32, 32, device=CUDA),
            labels=torch.empty(images, dtype=torch.int64, device=CUDA),
            ids=tuple(map(str, range(images))),
            positions=np.arange(images),
            conditions=conditions,
            seed=0,
            masks=torch.empty(images, 32, 32, dtype=torch.bool, device=CUDA),
            regions=torch.empty(images, 1, 32, 32, dtype=torch.uint8, device=CUDA),
        )
        network, everything = Waits(), Waits()
        with torch.inference_mode(), network:
            model(batch.images)
        with torch.inference_mode(), deferred(), everything:
            records = list(measurement.measure(model, batch))
    assert len(records) == len(conditions)
    assert 0 < everything.operators / len(conditions) - network.operators <= most
