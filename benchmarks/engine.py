"""What a run does beside the network: time on the processor by stage, operators, copies and waits, on null networks.

    python benchmarks/engine.py
    python benchmarks/engine.py --sizes 224 --batches 256 --json engine.json

A null network takes a picture apart into nothing: its mean colour is its answer. ``measure`` is what the conditions of
a batch cost with it, ``rows`` making records of what was measured, ``write`` encoding and writing them. For a GPU
there is nothing to measure here; what it would be sent and where the processor would wait for it is counted on tensors
without content, and the time to queue the work on them stands for the processor's (such tensors are slower to handle
than real ones, so that it is an upper bound).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ipvit
from ipvit.api import bind_context
from ipvit.core.deferred import deferred
from ipvit.engine.rows import RowMaker
from ipvit.engine.store import Identity, Store
from ipvit.experiments.base import Batch
from ipvit.experiments.registry import make_experiment
from ipvit.models.model import Model

CLASSES = 10
IDENTITY = Identity("null", 1, "0" * 64, "data", 0, "fp32", "")

EXPERIMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("accuracy", {}),
    "occlusion": ("occlusion", {"runs": 5, "grid": "8x8"}),
    "occlusion, every pixel": ("occlusion", {"runs": 1, "levels": (0.1, 0.5, 0.9), "grid": "SIZExSIZE"}),
    "occlusion, noise": ("occlusion", {"runs": 1, "levels": (0.1, 0.5, 0.9), "grid": "8x8", "fill": "noise"}),
    "occlusion, object": ("occlusion", {"modes": ("object",), "levels": (0.1, 0.5, 0.9)}),
    "shuffle": ("shuffle", {"grids": ("2x2", "4x4", "8x8"), "runs": 5}),
    "position": ("position", {}),
}


class Null(nn.Module):
    """Answers with the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, CLASSES)`` logits."""
        return self.head(images.mean(dim=(2, 3)))


def null_model(size: int) -> Model:
    """Return a network that costs as little as possible."""
    torch.manual_seed(0)
    return ipvit.wrap(Null(), size=size, crop_pct=1.0, classes=[f"c{i}" for i in range(CLASSES)], name="null")


def batch_of(n: int, size: int, conditions: tuple[Any, ...]) -> Batch:
    """Return random pictures."""
    random = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[:, size // 4 : -size // 4, size // 3 : -size // 4] = True
    return Batch(
        images=torch.rand(n, 3, size, size, generator=random),
        labels=torch.arange(n) % CLASSES,
        ids=tuple(f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in range(n)),
        positions=np.arange(n),
        conditions=conditions,
        seed=0,
        masks=masks,
    )


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """Return the processor time of a piece of work, the least of several."""
    found: list[float] = []
    started = time.perf_counter()
    while not found or time.perf_counter() - started < least:
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return min(found)


def stages(name: str, settings: dict[str, Any], n: int, size: int) -> dict[str, float]:
    """Return microseconds a result by stage."""
    settings = {key: value.replace("SIZE", str(size)) if key == "grid" else value for key, value in settings.items()}
    model = null_model(size)
    data = ipvit.MemoryDataset(np.zeros((CLASSES, 3, size, size), np.uint8), np.arange(CLASSES), model.classes or ())
    data = ipvit.load_dataset("demo:trifeature") if name == "position" else data
    measurement = make_experiment(name, settings).bind([model], data, bind_context())
    conditions = tuple(measurement.conditions(model))
    batch = batch_of(n, size, conditions)

    def measured() -> list[Any]:
        with torch.inference_mode(), deferred():
            return list(measurement.measure(model, batch))

    with torch.inference_mode():
        network = seconds(lambda: [model(batch.images) for _ in conditions])
    columns = [
        (
            one.condition,
            {key: np.asarray(values) for key, values in one.columns.items()} | {"label": batch.labels.numpy()},
        )
        for one in measured()
    ]
    maker = RowMaker()
    with tempfile.TemporaryDirectory() as folder:
        frames = list(maker.frames(IDENTITY, "null", batch.ids, columns))

        def write() -> None:
            store = Store(Path(folder))
            store.add(IDENTITY, "null", batch.ids, columns)
            store.flush()

        whole = seconds(write)
    rows = seconds(lambda: list(maker.frames(IDENTITY, "null", batch.ids, columns)))
    results = n * len(conditions)
    assert sum(frame.height for frame in frames) == results
    return {
        "conditions": len(conditions),
        "network": 1e6 * network / results,
        "measure": 1e6 * seconds(measured) / results,
        "rows": 1e6 * rows / results,
        "write": 1e6 * max(0.0, whole - rows) / results,
    }


def main() -> None:
    """Print a table, and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224], help="height and width in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    columns = ("network", "measure", "rows", "write")
    print(f"{'microseconds a result':26}{'px':>4}{'batch':>6}" + "".join(f"{name:>9}" for name in columns))
    for size in arguments.sizes:
        for n in arguments.batches:
            for title in arguments.only:
                row = stages(*EXPERIMENTS[title], n, size)
                print(f"{title:26}{size:4}{n:6}" + "".join(f"{row[name]:9.2f}" for name in columns), flush=True)
                found.append({"experiment": title, "size": size, "batch": n, **row})
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"torch": torch.__version__, "argv": sys.argv[1:], "rows": found}, indent=1)
        )


if __name__ == "__main__":
    main()
