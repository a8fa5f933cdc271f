"""On a machine with a GPU: is what is made there the same as on its processor, and how busy do runs keep it?

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --models demo:deit_micro --images 32 --batch 16 --precisions fp32

First masks, orders, noise, blocks and boxes are made on both and compared bit for bit, images that are changed by them
likewise, and a network's decisions in fp32 are counted that differ. Then each experiment is run with each network in
each precision, on random pictures in memory: results a second, the share of the time that the network's passes alone
take (``busy``; the higher, the less the GPU waits), and the peak of its memory. It is meant to take less than ten
minutes on one GPU. It leaves with status 1 where something differs that must not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ipvit
from ipvit.core.run_config import Precision, RunConfig
from ipvit.engine.device import models_on_device, numerics, without_gradients
from ipvit.experiments.registry import make_experiment
from ipvit.models.model import Model
from ipvit.perturb.on_device import bernoulli_keep, random_keep, random_order
from ipvit.perturb.patchdrop import fill_content, patchdrop
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle
from ipvit.perturb.tensor_words import uniform

CPU = torch.device("cpu")

EXPERIMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("accuracy", {}),
    "occlusion": ("occlusion", {"runs": 2, "levels": (0.2, 0.5, 0.8), "grid": "8x8"}),
    "every pixel": ("occlusion", {"runs": 2, "levels": (0.2, 0.5, 0.8), "grid": "32x32"}),
    "noise": ("occlusion", {"runs": 2, "levels": (0.2, 0.5, 0.8), "grid": "8x8", "fill": "noise"}),
    "shuffle": ("shuffle", {"grids": ("2x2", "4x4", "8x8"), "runs": 2}),
}


def made(device: torch.device, size: int) -> Iterator[tuple[str, Tensor]]:
    """Yield what is random about images, and images that are changed by it, made on a device."""
    key = keys([str(i) for i in range(64)], "gpu")
    images = torch.rand(64, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    for grid in ((8, 8), (size, size)):
        n = grid[0] * grid[1]
        for n_drop in (0, 1, n // 3, n - 1, n):
            yield f"mask of {n_drop} of {grid}", random_keep(key, grid, n_drop, device)
    keep = random_keep(key, (8, 8), 20, device)
    yield "masks by chance", bernoulli_keep(key, (8, 8), 0.3, device)
    yield "orders", random_order(key, 64, device)
    yield "uniform noise", uniform(key, (3, size, size), device)
    yield "occluded images", patchdrop(images, keep)
    yield "images with noise", patchdrop(images, keep, fill_content(images, "noise", key))
    yield "shuffled images", shuffle(images, random_order(key, 64, device), (8, 8))


def differences(device: torch.device, size: int) -> list[str]:
    """Return the names of what is not the same on a device as on the processor, bit for bit."""
    pairs = zip(made(CPU, size), made(device, size), strict=True)
    return [name for (name, here), (_, there) in pairs if not torch.equal(here, there.cpu())]


def other_decisions(name: str, device: torch.device, n: int) -> float:
    """Return the share of images that a network takes for something else on a device than on the processor, in fp32."""
    model = load(name)
    images = torch.rand(n, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), numerics(device, "fp32"):
        here = model(images).argmax(dim=1)
        there = model.to(device)(images.to(device)).argmax(dim=1).cpu()
    return float((here != there).float().mean())


def load(name: str) -> Model:
    """Return a network; all but the demo's with random weights, which take as long."""
    return ipvit.load_model(name) if name.startswith("demo:") else ipvit.load_model(name, pretrained=False)


def timed(
    name: str, title: str, precision: Precision, compiled: bool, device: torch.device, n: int, batch: int
) -> dict[str, Any]:
    """Run an experiment on a network; return how fast it was, and how much of the time its passes alone take."""
    model = load(name)
    height, width = model.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    data = ipvit.MemoryDataset(pixels, np.arange(n) % model.n_outputs, list(model.classes or map(str, range(1000))))
    experiment = make_experiment(*EXPERIMENTS[title])
    config = RunConfig(precision=precision, compile=compiled)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, models_on_device([model], device, config):
        parts = torch.from_numpy(pixels).to(device).split(batch)
        with numerics(device, precision), without_gradients(model, precision):
            model(parts[0].float() / 255)  # what is compiled is compiled here
            started = wait(device)
            for part in parts:
                model(part.float() / 255)
            alone = wait(device) - started
        started = wait(device)
        run = ipvit.run(
            experiment,
            models=[model],
            data=data,
            out=Path(folder) / "run",
            device=str(device),
            precision=precision,
            batch_size=batch,
            workers=0,
            progress=False,
        )
        taken = wait(device) - started
    results = run.manifest.measured_in_this_call
    found = {"results": results, "results_per_second": results / taken, "busy": alone * results / n / taken}
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    return {"model": name, "experiment": title, "precision": precision, "compiled": compiled, **found, "peak_mb": peak}


def wait(device: torch.device) -> float:
    """Return the time when a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["deit_small_patch16_224", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "tf32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="also measure the networks compiled")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here; --device cpu tries the script out", file=sys.stderr)
        return 2
    different = differences(device, 64)
    print("not the same on both:", ", ".join(different) or "nothing")
    decisions = {name: other_decisions(name, device, 64) for name in options.models}
    for name, share in decisions.items():
        print(f"{name}: {share:.2%} of the decisions differ in fp32")
    rows: list[dict[str, Any]] = []
    for name in options.models:
        for precision in options.precisions:
            for compiled in (False, True) if options.compile else (False,):
                for title in EXPERIMENTS:
                    row = timed(name, title, precision, compiled, device, options.images, options.batch)
                    print(
                        f"{name:26}{title:14}{precision:6}{'compiled' if compiled else '':9}"
                        f"{row['results_per_second']:12,.0f} results/s {row['busy']:6.0%} busy"
                        + (f" {row['peak_mb']:8,.0f} MB" if row["peak_mb"] else ""),
                        flush=True,
                    )
                    rows.append(row)
    if options.json:
        content = {"torch": torch.__version__, "device": str(device), "different": different, "decisions": decisions}
        options.json.write_text(json.dumps(content | {"rows": rows}, indent=1))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
