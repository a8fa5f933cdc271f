"""PGD over several epsilons: ipvit against a plain loop, in one run on the same images and weights.

    python benchmarks/attack.py --model demo:deit_micro --data demo:trifeature --images 128

The plain loop takes, for every epsilon, the clean accuracy, then all steps on all images, then the accuracy at the end.
ipvit runs the clean images once for all epsilons and leaves an image alone as soon as it is wrong. Both take 5 steps of
half an epsilon from the same random starts, in batches of the same size; the images are in memory. Times are
processor times, the smallest of three, taken in turn. ``floor`` is the plain loop's forward and backward passes alone:
what takes less leaves some of them out.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional as F

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.labels import map_classes
from ipvit.data.subset import subset_indices
from ipvit.perturb.attack import clean_pass, is_right, pgd, random_starts
from ipvit.perturb.seeding import keys

STEPS, STEP_SIZE = 5, 0.5


def plain(model: ipvit.Model, images: Tensor, labels: Tensor, starts: Tensor, epsilons: list[float]) -> list[int]:
    """Return how many images are right at the end, per epsilon."""
    right = []
    for epsilon in epsilons:
        radius = epsilon / 255
        with torch.no_grad():
            model(images).argmax(1)
        x = (images + radius * starts).clamp(0, 1)
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
            x = x.detach() + STEP_SIZE * radius * gradient.sign()
            x = torch.minimum(torch.maximum(x, images - radius), images + radius).clamp(0, 1)
        with torch.no_grad():
            right.append(int((model(x).argmax(1) == labels).sum()))
    return right


def ours(model: ipvit.Model, images: Tensor, labels: Tensor, starts: Tensor, epsilons: list[float]) -> list[int]:
    """Return how many images hold out, per epsilon."""
    clean = clean_pass(model, images, labels, gradient=False)
    found = [
        pgd(model, images, labels, epsilon, steps=STEPS, step_size=STEP_SIZE, starts=lambda _: starts, clean=clean)
        for epsilon in epsilons
    ]
    return [int(is_right(attacked.logits, labels).sum()) for attacked in found]


def bare(model: ipvit.Model, images: Tensor, labels: Tensor, _starts: Tensor, epsilons: list[float]) -> list[int]:
    """Make the plain loop's passes and nothing else: two forward and five forward and backward for every epsilon."""
    for _ in epsilons:
        for _ in range(2):
            with torch.no_grad():
                model(images)
        for _ in range(STEPS):
            x = images.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    return []


def load(model: ipvit.Model, name: str, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, labels and random starts."""
    data = ipvit.load_dataset(name)
    outputs = map_classes(data.classes or (), data.aliases, model.classes, data_name=data.name, model_name=model.name)
    chosen = subset_indices(data, n)
    images = torch.stack([apply_view(data.read(int(i)), model.preprocessing.view) for i in chosen]).float() / 255
    starts = random_starts(keys([data.ids[int(i)] for i in chosen], "benchmark"), tuple(images.shape[1:]))
    return images, torch.from_numpy(outputs[data.labels[chosen]]), starts


def main() -> None:
    """Measure every network and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="default: demo:deit_micro and demo:resnet_micro")
    parser.add_argument("--data", default="demo:trifeature")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[2.0, 4.0, 8.0])
    arguments = parser.parse_args()
    print(f"{arguments.images} images, PGD-{STEPS}, epsilons {arguments.epsilons}, {torch.get_num_threads()} threads")
    print(f"{'network':28}{'plain s':>9}{'floor s':>9}{'ours s':>9}{'ratio':>7}  right at the end: plain, ours")
    for name in arguments.model or ["demo:deit_micro", "demo:resnet_micro"]:
        model = ipvit.load_model(name)
        model.eval().requires_grad_(False)  # for both: neither wants the gradients of the weights
        parts = [part.split(arguments.batch) for part in load(model, arguments.data, arguments.images)]
        batches = list(zip(*parts, strict=True))
        seconds: dict[str, float] = {}
        right: dict[str, list[int]] = {}
        for _ in range(3):
            for way in (plain, bare, ours):
                started = time.process_time()
                counts = [way(model, images, labels, starts, arguments.epsilons) for images, labels, starts in batches]
                taken = time.process_time() - started
                seconds[way.__name__] = min(taken, seconds.get(way.__name__, taken))
                right[way.__name__] = [sum(column) for column in zip(*counts, strict=True)]
        ratio = seconds["plain"] / seconds["ours"]
        print(
            f"{model.name[:27]:28}{seconds['plain']:9.2f}{seconds['bare']:9.2f}{seconds['ours']:9.2f}{ratio:7.2f}  "
            f"{right['plain']}, {right['ours']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
