"""What the whole paper costs: passes and floating-point operations of every study behind a table or figure.

    python benchmarks/paper_cost.py                     # operations, and GPU-hours for an assumed rate
    python benchmarks/paper_cost.py --tflops 60         # your GPU: TFLOP/s that a forward pass sustains
    python benchmarks/paper_cost.py --measure deit_tiny_patch16_224 torchvision:resnet50   # this CPU's rates

No image is read and nothing is downloaded: networks are built with random weights, one image of zeros goes through
each. A pass is one image through the evaluated network; with gradients it counts as three. Studies that train heads
(probe, few-shot) and the training of adversarial patches are left out.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import ipvit
from ipvit.api import bind_context
from ipvit.commands.paper_studies import SALIENCE, StudyPart, paper_studies
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import make_experiment

IMAGES = {"imagenet": 50_000, "imagenet-c": 50_000, "voc": 1_449, "cue-conflict": 1_280}
"""Images of the data; ImageNet-C's 95 versions of each count as conditions."""

LEFT_OUT = ("probe", "fewshot")


@functools.cache
def network(name: str) -> ipvit.Model:
    """Return a network with random weights."""
    return ipvit.load_model(name, pretrained=False)


@functools.cache
def operations(name: str) -> int:
    """Floating-point operations (two per multiply-add) of one image through a network."""
    model = network(name)
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),  # the counter does not know the processor's fused attention
        torch.inference_mode(),
    ):
        model(torch.zeros(1, 3, *model.image_size))
    return counter.get_total_flops()


def photo() -> ipvit.MemoryDataset:
    """Return one black image of an ImageNet class with a mask: what the conditions are asked for."""
    pixels, masks = torch.zeros(1, 3, 224, 224, dtype=torch.uint8), torch.ones(1, 224, 224, dtype=torch.bool)
    return ipvit.MemoryDataset(pixels, np.zeros(1, dtype=np.int64), ["n01440764"], masks=masks)


def passes(experiment: Experiment, model: ipvit.Model) -> float:
    """Passes per image; an upper bound where an experiment shares the beginning of the network between conditions."""
    if experiment.name in ("segment", "token-similarity", "shape-bias", "accuracy"):
        return 1
    conditions = experiment.bind([model], photo(), bind_context()).conditions(model)
    if experiment.name == "attack":
        cost = {"clean": 1, "fgsm": 4, "pgd": 1 + 3 * getattr(experiment, "steps", 1)}
        return sum(cost.get(getattr(condition, "attack", ""), 1) for condition in conditions)
    if experiment.name == "correlation":
        return len({getattr(condition, "information_loss", 0) for condition in conditions}) + 1
    return len(conditions)


def rows(part: StudyPart) -> Iterator[tuple[str, str, int, float, float]]:
    """Yield experiment, model, images, passes per image and operations in all."""
    if part.data not in IMAGES:
        return
    images = IMAGES[part.data]
    for name, parameters in part.experiments.items():
        if name in LEFT_OUT:
            continue
        chosen = dict(parameters or {})
        if name == "occlusion":
            chosen["salience"] = "masks"  # counts the same, and asks for no weights
        experiment = make_experiment(name, chosen)
        for entry in part.models:
            model = entry["name"] if isinstance(entry, dict) else entry
            per_image = passes(experiment, network(model))
            total = images * per_image * operations(model)
            if part.needs_salience and name == "occlusion":
                total += images * operations(SALIENCE)
            yield name, model, images, per_image, total


def measure(names: list[str], batch: int = 8) -> None:
    """Print how fast this CPU runs networks: images and operations per second of one core."""
    torch.set_num_threads(1)
    for name in names:
        model = network(name)
        images = torch.rand(batch, 3, *model.image_size)
        seconds = []
        with torch.inference_mode():
            for _ in range(5):
                started = time.process_time()
                model(images)
                seconds.append(time.process_time() - started)
        rate, billions = batch / min(seconds), operations(name) / 1e9
        print(f"{name}: {billions:.2f} GFLOP, {rate:.1f} images/s, {rate * billions:.0f} GFLOP/s")


def main() -> None:
    """Print the table, or rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=40.0, help="sustained rate of one GPU; an assumption")
    parser.add_argument("--measure", nargs="+", metavar="MODEL")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    table: dict[str, list[float]] = {}
    networks = collections.Counter()
    for study in paper_studies().values():
        found = [row for part in study.parts for row in rows(part)]
        if found:
            networks.update({model for _, model, *_ in found})
            table[study.name] = [sum(r[2] * r[3] for r in found), sum(r[4] for r in found)]
    if arguments.json:
        print(json.dumps(table, indent=1))
        return
    for name, (count, total) in table.items():
        hours = total / arguments.tflops / 1e12 / 3600
        print(f"{name:18s} {count / 1e6:10.2f} M passes {total / 1e15:10.1f} PFLOP {hours:8.2f} GPU-hours")
    total = sum(total for _, total in table.values())
    count = sum(count for count, _ in table.values())
    hours = total / arguments.tflops / 1e12 / 3600
    print(f"{'all':18s} {count / 1e6:10.2f} M passes {total / 1e15:10.1f} PFLOP {hours:8.2f} GPU-hours")
    print(f"{len(networks)} networks; {arguments.tflops:g} TFLOP/s per GPU")


if __name__ == "__main__":
    main()
