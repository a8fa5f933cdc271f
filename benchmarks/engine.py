"""What a run does beside the network: processor time a result, on networks that cost next to nothing.

    python benchmarks/engine.py
    python benchmarks/engine.py --sizes 224 --batches 256 --json engine.json
    python benchmarks/engine.py --source PATH/TO/ANOTHER/CHECKOUT/src

A batch of random pictures is measured again and again under all conditions of an experiment, and its records are taken
in and written, as a run does it. Microseconds of processor time a result, by stage:

``network``  its passes alone, on the images as they are
``pixels``   what an experiment does beside them: masks, noise, measures; a GPU takes over the work on the pixels
``back``     results are read back from the device, and checked
``rows``     records, by the thread that measures
``writer``   records, by another thread, while the next batch is measured

``rate`` is how many results a second one thread can look after, when a GPU has the network. ``busy`` is the share of
the time that a GPU then computes which makes 10,000 passes a second (an assumption: DeiT-S on a recent one): it
computes while the next conditions are queued, and does nothing while results are read back and rows are made. Both
take the work on pixels for the processor's, which a GPU does itself, so they mean something for small pictures only,
where it is next to nothing. How often a batch waits for the device is counted by ``tests/engine/test_waits.py``. With
``--source`` the package of another checkout is measured in the same run, in turns.

The network answers with the mean colour; where an experiment reads more, it is the demo's of 64 pixels, whatever the
size that is asked for.
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
ROWS, FEW = 20_000, 1_000
"""Results that are written at a time; of a network that computes something."""

PASSES = 10_000
"""Passes a second of the GPU that ``busy`` is about."""

COLUMNS = ("network", "pixels", "back", "rows", "writer")

EXPERIMENTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "accuracy": ("accuracy", {}, ""),
    "occlusion": ("occlusion", {"runs": 5, "grid": "8x8"}, ""),
    "occlusion, every pixel": ("occlusion", {"runs": 1, "levels": (0.1, 0.5, 0.9), "grid": "SIZExSIZE"}, ""),
    "occlusion, noise": ("occlusion", {"runs": 1, "levels": (0.1, 0.5, 0.9), "grid": "8x8", "fill": "noise"}, ""),
    "occlusion, object": ("occlusion", {"modes": ("object",), "levels": (0.1, 0.5, 0.9)}, ""),
    "shuffle": ("shuffle", {"grids": ("2x2", "4x4", "8x8"), "runs": 5}, ""),
    "position": ("position", {}, ""),
    "corruptions, beside workers": ("corruptions", {"corruptions": ("contrast", "fog"), "severities": (1, 3, 5)}, ""),
    "attack, FGSM and PGD": ("attack", {"attacks": ("fgsm", "pgd"), "epsilons": (1, 4), "steps": 5}, ""),
    "feature drop": ("feature-drop", {"runs": 1, "rates": (0.5,)}, "demo:deit_micro"),
    "correlation": ("correlation", {"grid": "8x8", "runs": 1, "levels": (0.5,)}, "demo:deit_micro"),
    "attention": ("attention", {"levels": (0, 0.5)}, "demo:deit_micro"),
    "shape bias": ("shape-bias", {"stimuli": "demo:trifeature/cue-conflict"}, "demo:deit_micro"),
    "token similarity": ("token-similarity", {}, "demo:deit_micro_shape"),
    "segment": ("segment", {}, "demo:deit_micro"),
}
"""Experiment, settings, and the network where it is not the null one. Probes, episodes, shifts and stability are
measured like accuracy and correlation, on features and other images."""


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


class Setting:
    """A batch of an experiment on a network, ready to be measured.

    Args:
        title: of the experiment, of :data:`EXPERIMENTS`.
        n: images.
        size: height and width in pixels.
    """

    def __init__(self, title: str, n: int, size: int) -> None:
        import ipvit
        from ipvit.api import bind_context
        from ipvit.core.run_config import RunConfig
        from ipvit.engine.distributed import ProcessGroup
        from ipvit.engine.preparation import checked, plan_sweeps
        from ipvit.engine.types import Outcome, Selected
        from ipvit.experiments.base import Batch
        from ipvit.experiments.registry import make_experiment

        name, settings, network = EXPERIMENTS[title]
        if network:
            model = ipvit.load_model(network)
            size = model.image_size[0]
        else:
            model = ipvit.wrap(Null(), size=size, crop_pct=1.0, classes=CLASSES, name="null")
        settings = {
            key: value.replace("SIZE", str(size)) if key == "grid" else value for key, value in settings.items()
        }
        classes = list(model.classes or CLASSES)
        self.model, self.n = model.eval(), n
        ids = [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in range(n)]
        pixels = np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
        masks = np.zeros((n, size, size), np.uint8)
        masks[:, size // 4 : -size // 4, size // 3 : -size // 4] = 1
        cues = {cue: np.array([classes[i % len(classes)] for i in range(n)]) for cue in ("shape", "texture")}
        labels = np.arange(n) % len(classes)
        data = ipvit.MemoryDataset(pixels, labels, classes, ids=ids, masks=masks)
        config = RunConfig(device="cpu", batch_size=n, workers=0)
        selected = [Selected(make_experiment(name, settings))]
        _, tasks, _ = checked(selected, [model], data, config, ProcessGroup(), bind_context())
        plan = plan_sweeps(tasks, data, config, torch.device("cpu"), ProcessGroup())[-1]
        (task,) = plan.tasks
        self.task, self.plan = task, plan
        self.results = n * len(task.conditions)
        self.outcome = Outcome(n)
        self.batch = Batch(
            images=torch.from_numpy(pixels).float() / 255,
            labels=torch.from_numpy(labels),
            ids=tuple(ids),
            positions=np.arange(n),
            conditions=task.conditions,
            seed=0,
            masks=torch.from_numpy(masks).bool(),
            regions=torch.from_numpy(masks)[:, None],
            fields=cues,
            classes=tuple(classes),
        )

    def network(self) -> None:
        """Do the passes alone."""
        for _ in self.task.conditions:
            self.task.model(self.batch.images)

    def run(self, times: int) -> Stages:
        """Measure again and again, and write the records; return the seconds of each stage."""
        from ipvit.engine import measuring
        from ipvit.engine.store import Store

        stages = Stages()
        original: Any = getattr(measuring, "read_back", None)  # which earlier code has not
        measuring.read_back = stages.timed("back", original)
        try:
            with tempfile.TemporaryDirectory() as folder:
                store = Store(Path(folder))
                (self._by_two_threads if threaded() else self._by_one_thread)(times, store, stages)
        finally:
            measuring.read_back = original
        assert not self.outcome.failures, self.outcome.failures
        return stages

    def _by_two_threads(self, times: int, store: Any, stages: Stages) -> None:
        from ipvit.engine.loop.writer import Writer
        from ipvit.engine.measuring import measure_batch

        store.add, store.flush = stages.timed("writer", store.add), stages.timed("writer", store.flush)
        writer = Writer(store, self.outcome)
        add = stages.timed("rows", writer.add)
        started = stages.now()
        for _ in range(times):
            add(self.task, self.batch.ids, measure_batch(self.task, self.batch, self.plan, self.outcome))
        stages.taken["all"] = stages.now() - started
        writer.close()  # while a run goes on, the other thread does this

    def _by_one_thread(self, times: int, store: Any, stages: Stages) -> None:
        from ipvit.engine.measuring import measure_batch

        store.add, store.flush = stages.timed("rows", store.add), stages.timed("rows", store.flush)
        started = stages.now()
        for _ in range(times):
            measure_batch(self.task, self.batch, self.plan, store, self.outcome)  # pyright: ignore
        store.flush()
        stages.taken["all"] = stages.now() - started


class Stages:
    """Seconds of processor time by stage: of the thread that is at it, or, where there is one, of the process.

    polars computes in threads of its own; one thread that writes waits for them, two do not.
    """

    def __init__(self) -> None:
        self.taken: dict[str, float] = dict.fromkeys(("all", *COLUMNS), 0.0)
        self.now = time.thread_time if threaded() else time.process_time

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is added to a stage."""

        def called(*arguments: Any) -> Any:
            before = self.now()
            try:
                return function(*arguments)
            finally:
                self.taken[stage] += self.now() - before

        return called


def threaded() -> bool:
    """Tell whether the package that is measured writes in another thread."""
    import importlib.util

    return importlib.util.find_spec("ipvit.engine.loop") is not None


def measured(title: str, n: int, size: int, least: float) -> dict[str, float]:
    """Return microseconds a result by stage."""
    setting = Setting(title, n, size)
    times = max(1, (FEW if EXPERIMENTS[title][2] else ROWS) // setting.results)
    setting.run(1)
    found: list[Stages] = []
    started = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - started < least:
        found.append(setting.run(times))
    taken = min((stages.taken for stages in found), key=lambda one: one["all"])
    with torch.inference_mode():
        network = seconds(setting.network, least / 4) * times
    beside = taken["all"] - network - taken["back"] - taken["rows"]
    taken |= {"network": network, "pixels": max(0.0, beside)}
    return {name: 1e6 * taken[name] / setting.results / times for name in COLUMNS}


def fed(row: dict[str, Any]) -> tuple[float, float]:
    """Return how many results a second one thread looks after beside a GPU, and how busy that keeps the GPU."""
    after, passes = row["back"] + row["rows"], 1e6 / PASSES
    return 1e6 / max(row["pixels"] + after, 1e-9), passes / (max(row["pixels"], passes) + after)


def shown(title: str, row: dict[str, float]) -> str:
    """Return the numbers of a line; what is done beside a network that computes something is lost in its own time."""
    if EXPERIMENTS[title][2]:
        return "".join(f"{'-' if name == 'pixels' else format(row[name], '.1f'):>8}" for name in COLUMNS)
    rate, busy = fed(row)
    return "".join(f"{row[name]:8.1f}" for name in COLUMNS) + f"{rate:10,.0f}{busy:6.0%}"


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
    heads = "".join(f"{name:>8}" for name in COLUMNS)
    print(f"{'microseconds a result':28}{'px':>4}{'batch':>6}{'':>6}{heads}{'rate':>10}{'busy':>6}")
    for size in arguments.sizes:
        for n in arguments.batches:
            for title in arguments.only:
                if EXPERIMENTS[title][2] and size != arguments.sizes[0]:
                    continue
                for whose, source in sources.items():
                    one = ["--least", str(arguments.least), "--one", title, str(n), str(size)]
                    command = [sys.executable, __file__, *one]
                    environment = os.environ | ({"PYTHONPATH": source} if source else {})
                    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                    if done.returncode:
                        print(f"{title}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                        continue
                    row = json.loads(done.stdout.splitlines()[-1])
                    print(f"{title:28}{size:4}{n:6}{whose:>6}{shown(title, row)}", flush=True)
                    found.append({"experiment": title, "size": size, "batch": n, "code": whose, **row})
    if arguments.json:
        content = {"torch": torch.__version__, "threads": 1, "passes_per_second": PASSES, "rows": found}
        arguments.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
