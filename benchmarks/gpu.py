"""On a machine with a GPU: is what is made there the same as on its processor, and how busy do runs keep it?

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --models demo:deit_micro --results 64 --batch 16 --precisions fp32 --compile

First masks, orders, noise, bytes as numbers, images that are changed by them and keyed corruptions are made on both and
compared bit for bit. It is said which corruptions the GPU makes byte for byte, and how many of a network's decisions in
fp32 differ. Then each experiment is run with each network in each precision and, in bf16, compiled, on random pictures
in memory, as many as give so many results: results a second, the share of the time that the network's passes alone
take (``busy``; the higher, the less the GPU waits; where a result is one pass), and the peak of its memory. After nine
minutes it begins nothing more and names what is left out. It leaves with status 1 where something differs that must
not.
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
from ipvit.api import bind_context
from ipvit.core.run_config import Precision, RunConfig
from ipvit.engine.device import models_on_device, name_of, numerics, without_gradients
from ipvit.errors import InputError, error_line
from ipvit.experiments.registry import make_experiment
from ipvit.models.model import Model
from ipvit.perturb.corruptions import KEYED, SEVERITIES
from ipvit.perturb.corruptions.keyed import keyed_tensors
from ipvit.perturb.corruptions.tensor_versions import TENSOR_VERSIONS, equal
from ipvit.perturb.on_device import bernoulli_keep, random_keep, random_order
from ipvit.perturb.patchdrop import fill_content, patchdrop
from ipvit.perturb.pixels import as_floats
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle
from ipvit.perturb.tensor_words import uniform

CPU = torch.device("cpu")

OCCLUSION: dict[str, Any] = {"runs": 2, "levels": (0.2, 0.5, 0.8), "grid": "8x8"}
FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
EXPERIMENTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "accuracy": ("accuracy", {}, 1),
    "occlusion": ("occlusion", OCCLUSION, 1),
    "every pixel": ("occlusion", OCCLUSION | {"grid": "SIZExSIZE"}, 1),
    "noise": ("occlusion", OCCLUSION | {"fill": "noise"}, 1),
    "object": ("occlusion", {"modes": ("object",), "levels": (0.1, 0.5, 0.9)}, 1),
    "tokens out": ("occlusion", OCCLUSION | {"removal": "tokens"}, 0),
    "shuffle": ("shuffle", {"grids": ("2x2", "4x4", "8x8"), "runs": 2}, 1),
    "position": ("position", {}, 1),
    "corrupted there": ("corruptions", {"corruptions": FIXED, "severities": (3,)}, 1),
    "keyed": ("corruptions", {"corruptions": KEYED, "severities": (3,), "made": "keyed"}, 1),
    "by workers": ("corruptions", {"corruptions": ("fog", "snow", "glass_blur"), "severities": (3,)}, 1),
    "attack": ("attack", {"attacks": ("fgsm", "pgd"), "epsilons": (1, 4), "steps": 5}, 0),
    "feature drop": ("feature-drop", {"runs": 1, "rates": (0.5,)}, 0),
    "correlation": ("correlation", {"grid": "8x8", "runs": 1, "levels": (0.5,)}, 0),
    "attention": ("attention", {"levels": (0, 0.5)}, 0),
    "segment": ("segment", {}, 0),
}
"""Experiment, settings, and passes for a result where that is one number. Probes, episodes, shifts and stability are
measured like accuracy and correlation; shape bias and token similarity need other images and networks."""


def made(device: torch.device, size: int) -> Iterator[tuple[str, Tensor]]:
    """Yield what is random about images, and images that are changed by it, made on a device."""
    key = keys([str(i) for i in range(64)], "gpu")
    content = torch.randint(0, 256, (64, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = as_floats(content, device)
    yield "bytes as numbers", images
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
    slope = torch.arange(37 * size).view(37, size).expand(64, 3, -1, -1).remainder(256).to(torch.uint8)
    for pixels in (content, slope):
        for name in KEYED:
            for severity in SEVERITIES:
                for jpeg in (False, True):
                    said = f"keyed {name}, {severity}, {pixels.shape[2]} x {pixels.shape[3]}{', JPEG' * jpeg}"
                    yield said, keyed_tensors(pixels.to(device), name, severity, key, jpeg=jpeg)


def differences(device: torch.device, size: int) -> list[str]:
    """Return the names of what is not the same on a device as on the processor, bit for bit."""
    pairs = zip(made(CPU, size), made(device, size), strict=True)
    return [name for (name, here), (_, there) in pairs if not torch.equal(here, there.cpu())]


def made_there(device: torch.device, size: int) -> dict[str, bool]:
    """Return of each corruption without chance whether a device makes the bytes that this machine's processor makes."""
    return {name: equal(name, device, (size, size), jpeg=True) for name in TENSOR_VERSIONS}


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
    model: Model, title: str, precision: Precision, compiled: bool, device: torch.device, results: int, batch: int
) -> dict[str, Any]:
    """Run an experiment on a network; return how fast it was, and how much of the time its passes alone take."""
    height = model.image_size[0]
    name, settings, passes = EXPERIMENTS[title]
    grid = settings.get("grid", "").replace("SIZE", str(height))
    experiment = make_experiment(name, settings | ({"grid": grid} if grid else {}))
    data = pictures(model, 2)
    conditions = len(experiment.bind([model], data, bind_context()).conditions(model))
    n = max(1, round(results / conditions / batch)) * batch
    data = pictures(model, n)
    config = RunConfig(precision=precision, compile=compiled, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder, models_on_device([model], device, config):
        part = as_floats(torch.stack([data.read(i) for i in range(batch)]), device)
        with numerics(device, precision), without_gradients(model, precision):
            model(part)  # what is compiled is compiled here
            started = wait(device)
            for _ in range(8):
                model(part)
            alone = (wait(device) - started) / 8 / batch
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = wait(device)
        run = ipvit.run(
            experiment,
            models=[model],
            data=data,
            out=Path(folder) / "run",
            device=str(device),
            precision=precision,
            batch_size=batch,
            workers=None if title == "by workers" else 0,
            progress=False,
        )
        taken = wait(device) - started
    found = run.manifest.measured_in_this_call
    if run.manifest.failures:
        raise RuntimeError(run.manifest.failures[0].error)
    return {
        "experiment": title,
        "precision": precision,
        "compiled": compiled,
        "images": n,
        "results": found,
        "results_per_second": found / taken,
        "busy": alone * found / taken if passes else None,
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None,
    }


def pictures(model: Model, n: int) -> Any:
    """Return random pictures with an object in each."""
    height, width = model.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    masks = np.zeros((n, height, width), np.uint8)
    masks[:, height // 4 : -height // 4, width // 3 : -width // 4] = 1
    classes = list(model.classes or map(str, range(model.n_outputs)))
    return ipvit.MemoryDataset(pixels, np.arange(n) % len(classes), classes, masks=masks)


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
    parser.add_argument("--compile", nargs="*", default=["bf16"], help="in which precisions also compiled")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--results", type=int, default=16384, help="about so many of each experiment")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=540, help="begin nothing after that")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here; --device cpu tries the script out", file=sys.stderr)
        return 2
    started = time.monotonic()
    different = differences(device, 64)
    print("not the same on both:", ", ".join(different) or "nothing")
    there = made_there(device, 224)
    print("corruptions of other bytes:", ", ".join(name for name, same in there.items() if not same) or "none")
    decisions = {name: other_decisions(name, device, 64) for name in options.models}
    for name, share in decisions.items():
        print(f"{name}: {share:.2%} of the decisions differ in fp32", flush=True)
    settings = [(precision, compiled) for compiled in (False, True) for precision in options.precisions]
    settings = [one for one in settings if not one[1] or one[0] in options.compile]
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for precision, compiled in settings:
        for name in options.models:
            model = load(name)
            for title in options.only:
                said = f"{name:26}{title:16}{precision:6}{'compiled' if compiled else '':9}"
                if time.monotonic() - started > options.seconds:
                    left_out.append(" ".join(said.split()))
                    continue
                try:
                    row = timed(model, title, precision, compiled, device, options.results, options.batch)
                except InputError as error:  # a network that is not read inside
                    print(f"{said} {str(error)[:60]}", flush=True)
                    continue
                except Exception as error:  # noqa: BLE001 - the rest goes on
                    print(f"{said} failed: {error_line(error)}", flush=True)
                    left_out.append(" ".join(said.split()))
                    continue
                rows.append({"model": name, **row})
                busy = "" if row["busy"] is None else f" {row['busy']:6.0%} busy"
                peak = f" {row['peak_mb']:8,.0f} MB" if row["peak_mb"] else ""
                print(f"{said}{row['results_per_second']:12,.0f} results/s{busy}{peak}", flush=True)
    print("left out:", "; ".join(left_out) or "nothing", f"({time.monotonic() - started:.0f} s in all)")
    if options.json:
        found = {"torch": torch.__version__, "device": name_of(device), "different": different, "made_there": there}
        content = found | {"decisions": decisions, "rows": rows, "left_out": left_out}
        options.json.write_text(json.dumps(content, indent=1))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
