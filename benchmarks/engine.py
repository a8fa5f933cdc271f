"""What a run does beside the network: processor time a result, on a network that costs next to nothing.

    python benchmarks/engine.py
    python benchmarks/engine.py --sizes 224 --batches 256 --json engine.json
    python benchmarks/engine.py --source PATH/TO/ANOTHER/CHECKOUT/src

A batch of random pictures is measured again and again under all conditions of an experiment, and its records are taken
in and written, as a run does it; the network answers with the mean colour. ``network`` is the time of its passes alone,
``all`` that of everything. With ``--source`` the package of another checkout is measured in the same run, in turns.
``rate`` is how many results a second one processor core can look after, when a GPU has the rest: pictures on a
processor cost it the work on pixels too, which a GPU takes over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = [f"c{i}" for i in range(10)]
ROWS = 20_000
"""Results that are written at a time."""

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
        torch.manual_seed(0)
        self.head = nn.Linear(3, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, classes)`` logits."""
        return self.head(images.mean(dim=(2, 3)))


def seconds(work: Callable[[], object], least: float) -> float:
    """Return the processor time of a piece of work, the least of several."""
    found: list[float] = []
    started = time.perf_counter()
    work()
    while len(found) < 3 or time.perf_counter() - started < least:
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return min(found)


def measured(title: str, n: int, size: int, least: float) -> dict[str, float]:
    """Return microseconds a result, of the network alone and of everything."""
    import ipvit
    from ipvit.api import bind_context
    from ipvit.core.run_config import RunConfig
    from ipvit.engine.distributed import ProcessGroup
    from ipvit.engine.measuring import measure_batch
    from ipvit.engine.preparation import checked, plan_sweeps
    from ipvit.engine.store import Store
    from ipvit.engine.types import Outcome, Selected
    from ipvit.experiments.base import Batch
    from ipvit.experiments.registry import make_experiment

    name, settings = EXPERIMENTS[title]
    settings = {key: value.replace("SIZE", str(size)) if key == "grid" else value for key, value in settings.items()}
    model = ipvit.wrap(Null(), size=size, crop_pct=1.0, classes=CLASSES, name="null")
    ids = [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in range(n)]
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    masks = np.zeros((n, size, size), np.uint8)
    masks[:, size // 4 : -size // 4, size // 3 : -size // 4] = 1
    data = ipvit.MemoryDataset(pixels, np.arange(n) % len(CLASSES), CLASSES, ids=ids, masks=masks)
    config = RunConfig(device="cpu", batch_size=n, workers=0)
    selected = [Selected(make_experiment(name, settings))]
    _, tasks, _ = checked(selected, [model], data, config, ProcessGroup(), bind_context())
    (plan,) = plan_sweeps(tasks, data, config, torch.device("cpu"), ProcessGroup())
    (task,) = plan.tasks
    batch = Batch(
        images=torch.from_numpy(pixels).float() / 255,
        labels=torch.from_numpy(np.arange(n) % len(CLASSES)),
        ids=tuple(ids),
        positions=np.arange(n),
        conditions=task.conditions,
        seed=0,
        masks=torch.from_numpy(masks).bool(),
    )
    results = n * len(task.conditions)
    times = max(1, ROWS // results)
    with tempfile.TemporaryDirectory() as folder:
        store, outcome = Store(Path(folder)), Outcome(n)

        def everything() -> None:
            for _ in range(times):
                measure_batch(task, batch, plan, store, outcome)
            store.flush()

        whole = seconds(everything, least) / times
        assert not outcome.failures, outcome.failures
    with torch.inference_mode():
        network = seconds(lambda: [model(batch.images) for _ in task.conditions], least / 4)
    return {"network": 1e6 * network / results, "all": 1e6 * whole / results}


def main() -> None:
    """Print a table, and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224], help="height and width in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--least", type=float, default=1.0, help="seconds that each number is measured for")
    parser.add_argument("--source", help="the package of another checkout, which is measured as well")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        title, n, size = arguments.one
        print(json.dumps(measured(title, int(n), int(size), arguments.least)))
        return
    sources = {"this": None} | ({"other": arguments.source} if arguments.source else {})
    found: list[dict[str, Any]] = []
    print(f"{'microseconds a result':26}{'px':>5}{'batch':>6}{'':>8}{'network':>9}{'all':>9}{'rate':>11}")
    for size in arguments.sizes:
        for n in arguments.batches:
            for title in arguments.only:
                for whose, source in sources.items():
                    one = ["--least", str(arguments.least), "--one", title, str(n), str(size)]
                    command = [sys.executable, __file__, *one]
                    environment = os.environ | ({"PYTHONPATH": source} if source else {})
                    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                    row = json.loads(done.stdout.splitlines()[-1])
                    rate = 1e6 / max(row["all"] - row["network"], 1e-9)
                    numbers = f"{row['network']:9.2f}{row['all']:9.2f}{rate:11,.0f}"
                    print(f"{title:26}{size:5}{n:6}{whose:>8}{numbers}", flush=True)
                    found.append({"experiment": title, "size": size, "batch": n, "code": whose, **row})
    if arguments.json:
        content = {"torch": torch.__version__, "threads": 1, "rows": found}
        arguments.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
