"""An attack of another library in the experiment: torchattacks' PGD in l2 beside random noise of the same budget.

    python examples/wrapped_attack.py

The function at the top is all that wrapping takes: ipvit gives it the network, images that it has right, their labels,
the budget and a key for each image, and holds what comes back to the budget. Without torchattacks a few lines of
gradient ascent stand in its place. In a file of its own it is `ipvit attack --attacks wrapped_attack.py:wrapped`.
"""

import importlib.util
import sys

import numpy as np
import torch
from torch import Tensor

import ipvit
from ipvit.perturb.budget import Budget


def wrapped(model: ipvit.Model, images: Tensor, labels: Tensor, budget: Budget, _key: np.ndarray) -> Tensor:
    """Attack in l2, with torchattacks where it is installed; foolbox is wrapped in the same way."""
    if importlib.util.find_spec("torchattacks"):
        import torchattacks  # pyright: ignore[reportMissingImports]

        attack = torchattacks.PGDL2(model, eps=budget.size, alpha=budget.size / 4, steps=10, random_start=False)
        return attack(images, labels)
    moved = images.clone()
    for _ in range(10):
        moved.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        length = length_of(gradient).clamp(min=1e-12)
        change = moved.detach() + budget.size / 4 * gradient / length - images
        far = length_of(change).clamp(min=budget.size)
        moved = (images + change * budget.size / far).clamp(0, 1)
    return moved


def length_of(change: Tensor) -> Tensor:
    """Return the length of each image's change, ``(B, 1, 1, 1)``."""
    return change.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


if __name__ == "__main__":
    run = ipvit.run(
        ipvit.Attack(attacks=(f"{__file__}:wrapped", "apgd"), norm="l2", epsilons=(0.25, 0.5), apgd_steps=10),
        models=["demo:resnet_micro"],
        data="demo:trifeature",
        limit=40,
        out="runs/wrapped-attack",
        progress=False,
    )
    print(run.tables["attack"])
    sys.stdout.write("\n".join(run.summary["attack"]) + "\n")
