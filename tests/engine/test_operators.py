"""How much a condition queues on a GPU beside the network: the processor's work, whatever the batch.

An operator that only looks at a tensor in another way queues nothing and is not counted.

No GPU is needed to count them: tensors have shapes and devices, and nothing in them.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import fake_tensor

import ipvit
from helpers.waits import CUDA, Waits, no_gpu, no_tables_kept, put_on_a_device_that_is_not_there
from ipvit.api import bind_context
from ipvit.core.queued.deferred import deferred
from ipvit.experiments.base import Batch
from ipvit.experiments.registry import make_experiment
from ipvit.perturb.corruptions import KEYED

OCCLUSION: dict[str, Any] = {"levels": (0.3, 0.6), "runs": 2, "grid": "8x8"}
SWEEP = {"levels": tuple(level / 10 for level in range(10)), "runs": 5, "grid": "8x8"}
MOST = {
    "accuracy": ("accuracy", {}, 95),
    "occlusion": ("occlusion", OCCLUSION, 30),
    "occlusion, 46 conditions": ("occlusion", SWEEP, 23),
    "single pixels": ("occlusion", OCCLUSION | {"grid": "32x32"}, 30),
    "noise": ("occlusion", OCCLUSION | {"fill": "noise"}, 285),
    "object": ("occlusion", {"modes": ("object",), "levels": (0.3, 0.6)}, 60),
    "shuffle": ("shuffle", {"grids": ("4x4",), "runs": 2}, 45),
    "position": ("position", {}, 25),
    "keyed corruptions": ("corruptions", {"corruptions": KEYED, "severities": (3,), "made": "keyed"}, 175),
}
"""Experiment, settings, what a condition queues at most, on average: one that is clean queues some sixty more."""


class MeanColour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


@pytest.mark.parametrize("images", [4, 64])
@pytest.mark.parametrize("title", MOST)
def test_a_condition_queues_no_more_than_so_much(title, images, monkeypatch):
    name, settings, most = MOST[title]
    classes = [f"c{i}" for i in range(10)]
    model = ipvit.wrap(MeanColour(), size=32, crop_pct=1.0, classes=classes)
    masks = np.zeros((4, 32, 32), np.uint8)
    data = ipvit.MemoryDataset(np.zeros((4, 3, 32, 32), np.uint8), np.arange(4), classes, masks=masks)
    measurement = make_experiment(name, settings).bind([model], data, bind_context())
    assert model.capabilities  # they are tried out, for which tensors need content
    conditions = tuple(measurement.conditions(model))
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)
    with no_tables_kept(), no_gpu():
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
    assert 0 < everything.queued / len(conditions) - network.queued <= most
