"""Nothing waits for a GPU before all conditions of a batch are queued there. No GPU is needed to see it.

``.item()`` and the like raise on tensors that have no content; copies that would wait are counted.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import ipvit
from helpers.waits import CUDA, Waits, no_gpu, no_tables_kept, put_on_a_device_that_is_not_there
from ipvit.api import bind_context
from ipvit.core.queued.deferred import deferred
from ipvit.engine.device import without_gradients
from ipvit.experiments.base import Batch, Measurement
from ipvit.experiments.corruptions import measurement as corruptions
from ipvit.experiments.registry import make_experiment
from ipvit.models.model import Model
from ipvit.perturb.corruptions import KEYED
from ipvit.perturb.corruptions.tensor_versions import TENSOR_VERSIONS

IMAGES = 4
OCCLUSION = {"levels": (0, 0.3, 0.6), "runs": 2, "grid": "8x8"}

QUEUED: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("accuracy", {}),
    "occlusion, random": ("occlusion", OCCLUSION),
    "occlusion, every pixel": ("occlusion", OCCLUSION | {"grid": "64x64"}),
    "occlusion, salient": (
        "occlusion",
        OCCLUSION | {"modes": ("salient", "non_salient"), "salience": "demo:deit_micro"},
    ),
    "occlusion, block and object": ("occlusion", OCCLUSION | {"modes": ("block", "object")}),
    "occlusion, noise": ("occlusion", OCCLUSION | {"fill": "noise"}),
    "occlusion, other images": ("occlusion", OCCLUSION | {"fill": "other"}),
    "occlusion, blur off the grid": ("occlusion", OCCLUSION | {"fill": "blur", "offset": (3, 5)}),
    "feature drop": ("feature-drop", {"rates": (0.25, 0.5), "runs": 1}),
    "feature drop, authors": ("feature-drop", {"rates": (0.25,), "runs": 1, "protocol": "authors"}),
    "token similarity": ("token-similarity", {}),
    "shuffle": ("shuffle", {"grids": ("1x1", "4x4"), "runs": 2}),
    "position": ("position", {}),
    "probe": ("probe", {"heads": ("own",)}),
    "corruptions": ("corruptions", {"corruptions": ("fog",), "severities": (1,)}),
}
"""What never waits, with settings that have something to do."""


def bound(name: str, settings: dict[str, Any]) -> tuple[Measurement, Model]:
    network = "demo:deit_micro_shape" if name == "token-similarity" else "demo:deit_micro"
    model = ipvit.load_model(network)
    data = ipvit.load_dataset("demo:trifeature/cue-conflict" if name == "shape-bias" else "demo:trifeature")
    measurement = make_experiment(name, settings).bind([model], data, bind_context())
    measurement.items(data, IMAGES)
    assert model.capabilities  # they are tried out, for which tensors need content
    return measurement, model


def batch_of(conditions: tuple[Any, ...], model: Model) -> Batch:
    return Batch(
        images=torch.empty(IMAGES, 3, *model.image_size, device=CUDA),
        labels=torch.empty(IMAGES, dtype=torch.int64, device=CUDA),
        ids=tuple(f"image {i}" for i in range(IMAGES)),
        positions=np.arange(IMAGES),
        conditions=conditions,
        seed=0,
        masks=torch.empty(IMAGES, *model.image_size, dtype=torch.bool, device=CUDA),
        regions=torch.empty(IMAGES, 1, *model.image_size, dtype=torch.uint8, device=CUDA),
        donors=torch.empty(3, 3, *model.image_size, device=CUDA),
        donor_ids=("a", "b", "c"),
        fields={cue: np.array(["a circle"] * IMAGES) for cue in ("shape", "texture")},
        classes=ipvit.load_dataset("demo:trifeature").classes,
    )


class Read:
    """Stands for reading back, which needs content: gives zeros, and notes how many operators were queued before."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits
        self.after: list[int] = []

    def __call__(self, measured: Any) -> list[dict[str, np.ndarray]]:
        self.after.append(self.waits.operators)
        return [{name: _zeros(values) for name, values in columns.items()} for columns in measured]


def _zeros(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return np.zeros(tuple(values.shape), dtype=str(values.dtype).removeprefix("torch."))
    return values


def run(name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Waits, Read]:
    """Measure a batch of four images on a GPU that is not there; return what waited, and when results were read."""
    measurement, model = bound(name, settings)
    conditions = tuple(measurement.conditions(model))
    prepared: Any = SimpleNamespace(heads={}, own_outputs=None)
    waits = Waits()
    read = Read(waits)
    package = type(measurement).__module__
    monkeypatch.setattr(f"{package}.read_back", read, raising=False)
    monkeypatch.setattr(
        f"{package}.decide", lambda logits, *_: np.full(len(logits), ""), raising=False
    )  # of what was read
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)  # single numbers it would compute, on a GPU
    with no_gpu():
        put_on_a_device_that_is_not_there(model)
        if (source := getattr(measurement, "_source", None)) is not None and source._model is not None:
            put_on_a_device_that_is_not_there(source._model)
        batch = dataclasses.replace(batch_of(conditions, model), prepared=prepared)
        with deferred(), without_gradients(model, "fp32"), waits:
            records = list(measurement.measure(model, batch))
    assert {one.condition for one in records} == set(conditions)
    return waits, read


@pytest.mark.parametrize("name", QUEUED)
def test_all_conditions_are_queued_without_waiting(name, monkeypatch):
    waits, read = run(*QUEUED[name], monkeypatch)
    assert waits.waits == {}
    assert read.after == [] and waits.operators > 0


def test_corruptions_that_a_gpu_makes_are_queued_without_waiting(monkeypatch):
    names = tuple(TENSOR_VERSIONS)
    monkeypatch.setattr(corruptions, "made_there", lambda *_: frozenset(names))
    with no_tables_kept():
        waits, read = run("corruptions", {"corruptions": names, "severities": (1, 5)}, monkeypatch)
    assert waits.waits == {} and read.after == []
    assert waits.sent < 2 * 16 * 8  # tables, not images


@pytest.mark.parametrize("name", KEYED)
def test_keyed_corruptions_are_queued_without_waiting(name, monkeypatch):
    settings = {"corruptions": (name,), "severities": (1, 5), "made": "keyed"}
    with no_tables_kept():
        waits, read = run("corruptions", settings, monkeypatch)
    assert waits.waits == {} and read.after == []
    assert waits.operators > 0


@pytest.mark.parametrize(
    ("name", "settings", "times"),
    [
        ("correlation", {"grid": "8x8", "runs": 2}, 1),
        ("attention", {"levels": (0, 0.5)}, 1),
        ("shape-bias", {}, 1),
        ("segment", {"thresholds": (0.6, 0.9)}, 2),  # once for which objects there are
    ],
)
def test_what_is_read_by_the_experiment_itself_is_read_after_everything_is_queued(name, settings, times, monkeypatch):
    waits, read = run(name, settings, monkeypatch)
    assert waits.waits == {}
    assert len(read.after) == times and read.after[-1] == waits.operators


def test_what_waits_is_seen():
    """The counter itself: each way to wait is one."""
    with no_gpu():
        there, here = torch.empty(4, device=CUDA), torch.empty(4)
        numbers = torch.empty(2, dtype=torch.int64)
        waits = Waits()
        with waits:
            here.to(CUDA)
            here.to(CUDA, non_blocking=True)
            there.cpu()
            there[numbers]
            with pytest.raises(DataDependentOutputException):
                there.sum().item()
            with pytest.raises(DynamicOutputShapeException):
                torch.where(there > 0)
    assert waits.sent == 2
    assert waits.waits == {
        "cpu to cuda": 1,
        "cuda to cpu": 1,
        "index from the processor": 1,
        "_local_scalar_dense": 1,
        "nonzero": 1,
    }
