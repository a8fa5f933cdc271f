"""PGD and APGD over several epsilons: ipvit against torchattacks and a plain loop, on the same images and weights.

    python benchmarks/attack.py --model demo:deit_micro --data demo:trifeature --images 128

The plain loop takes, for every epsilon, the clean accuracy, then all steps on all images, then the accuracy at the end;
torchattacks, where it is installed, is given all images for every epsilon, too, and its images are classified. ipvit
runs the clean images once for all epsilons and leaves an image alone as soon as it is wrong. PGD takes 5 steps of half
an epsilon, from the same random starts in the plain loop and in ipvit; APGD takes ``--apgd-steps``, on cross-entropy.
Batches are of the same size; the images are in memory. Times are processor times, the smallest of so many rounds, taken
in turn. ``floor`` is the plain loop's forward and backward passes alone: what takes less leaves some of them out. The
``bound`` is how much faster PGD could be at most if nothing but passes took time: those of the plain loop over those of
ipvit, each image counted, at what a pass of a batch takes. In the end the process's peak memory after few steps and one
epsilon is printed beside that after many and all: what is kept does not grow with either.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.labels import map_classes
from ipvit.data.subset import subset_indices
from ipvit.perturb.attack import apgd, clean_pass, is_right, pgd, random_starts
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

STEPS, STEP_SIZE = 5, 0.5

Way = Callable[[ipvit.Model, Tensor, Tensor, Tensor, list[float]], list[int]]
"""Network, images, labels, starts and epsilons to how many images are right at the end, per epsilon."""


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


def ours_apgd(steps: int) -> Way:
    """Return APGD as ipvit does it."""

    def run(model: ipvit.Model, images: Tensor, labels: Tensor, starts: Tensor, epsilons: list[float]) -> list[int]:
        clean = clean_pass(model, images, labels, gradient=False)
        key = keys([str(float(start.sum())) for start in starts], "benchmark")
        found = [apgd(model, images, labels, Budget("linf", e / 255), key, steps=steps, clean=clean) for e in epsilons]
        return [int(is_right(attacked.logits, labels).sum()) for attacked in found]

    return run


def theirs(name: str, steps: int) -> Way:
    """Return an attack of torchattacks with the same settings."""
    import torchattacks  # pyright: ignore[reportMissingImports]

    def run(model: ipvit.Model, images: Tensor, labels: Tensor, _starts: Tensor, epsilons: list[float]) -> list[int]:
        right: list[int] = []
        for epsilon in epsilons:
            size = epsilon / 255
            attack = (
                torchattacks.PGD(model, eps=size, alpha=STEP_SIZE * size, steps=steps)
                if name == "PGD"
                else torchattacks.APGD(model, norm="Linf", eps=size, steps=steps, n_restarts=1, loss="ce")
            )
            moved = attack(images, labels)
            with torch.no_grad():
                right.append(int(((model(images).argmax(1) == labels) & (model(moved).argmax(1) == labels)).sum()))
        return right

    return run


def ways_of(apgd_steps: int) -> dict[str, dict[str, Way]]:
    """Return by attack who makes it, and how."""
    found: dict[str, dict[str, Way]] = {f"PGD-{STEPS}": {"plain": plain, "floor": bare, "ours": ours}}
    found[f"APGD-{apgd_steps}"] = {"ours": ours_apgd(apgd_steps)}
    if importlib.util.find_spec("torchattacks"):
        found[f"PGD-{STEPS}"]["torchattacks"] = theirs("PGD", STEPS)
        found[f"APGD-{apgd_steps}"]["torchattacks"] = theirs("APGD", apgd_steps)
    return found


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
    parser.add_argument("--apgd-steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{arguments.images} images, epsilons {arguments.epsilons}, {torch.get_num_threads()} threads")
    for name in arguments.model or ["demo:deit_micro", "demo:resnet_micro"]:
        model = ipvit.load_model(name)
        model.eval().requires_grad_(False)  # for all: nobody wants the gradients of the weights
        parts = [part.split(arguments.batch) for part in load(model, arguments.data, arguments.images)]
        batches = list(zip(*parts, strict=True))
        for attack, ways in ways_of(arguments.apgd_steps).items():
            seconds, right = timed(model, batches, ways, arguments.epsilons, arguments.rounds)
            for way, taken in seconds.items():
                ratio = f"{taken / seconds['ours']:5.2f} times ours" if way != "ours" else ""
                print(
                    f"{model.name[:27]:28}{attack:9}{way:13}{taken:8.2f} s  {ratio:16} right: {right[way]}", flush=True
                )
        print(f"{model.name[:27]:28}PGD-{STEPS} bound {bound(model, batches, arguments.epsilons):.2f} times")
        peak_memory(model, batches[0], arguments.epsilons)


class Counting(nn.Module):
    """Counts the images that a network is given, apart where gradients are wanted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images = {True: 0, False: 0}
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits."""
        self.images[torch.is_grad_enabled()] += len(images)
        return self.network(images)


def bound(model: ipvit.Model, batches: list[tuple[Tensor, ...]], epsilons: list[float]) -> float:
    """Return how many times as long the plain loop's passes take as ipvit's."""
    images, labels, _ = batches[0]

    def forward() -> None:
        with torch.no_grad():
            model(images)

    def backward() -> None:
        x = images.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(x), labels), x)

    seconds: dict[bool, float] = {}
    for wanted, run in ((False, forward), (True, backward)):
        for _ in range(7):
            started = time.process_time()
            run()
            seconds[wanted] = min(time.process_time() - started, seconds.get(wanted, float("inf")))
    taken: list[float] = []
    for way in (plain, ours):
        counting: Any = Counting(model)
        for images, labels, starts in batches:
            way(counting, images, labels, starts, epsilons)
        taken.append(sum(seconds[wanted] * count for wanted, count in counting.images.items()))
    return taken[0] / taken[1]


def timed(
    model: ipvit.Model, batches: list[tuple[Tensor, ...]], ways: dict[str, Way], epsilons: list[float], rounds: int
) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Return the least time of each way, and how many images are right at the end, per epsilon."""
    seconds: dict[str, float] = {}
    right: dict[str, list[int]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            torch.manual_seed(0)
            started = time.process_time()
            counts = [way(model, images, labels, starts, epsilons) for images, labels, starts in batches]
            taken = time.process_time() - started
            seconds[name] = min(taken, seconds.get(name, taken))
            right[name] = [sum(column) for column in zip(*counts, strict=True)]
    return seconds, right


def peak_memory(model: ipvit.Model, batch: tuple[Tensor, ...], epsilons: list[float]) -> None:
    """Print the peak memory of the process after few steps and one epsilon, and after many steps and all of them."""
    peaks: list[int] = []
    for steps, sizes in ((3, epsilons[:1]), (30, epsilons)):
        ours_apgd(steps)(model, batch[0], batch[1], batch[2], sizes)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    print(f"{model.name[:27]:28}peak memory {peaks[0]} MiB after 3 steps, {peaks[1]} MiB after 30 and all epsilons")


if __name__ == "__main__":
    main()
