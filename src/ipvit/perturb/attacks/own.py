"""Any other attack: a function that makes images within a budget."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.common import (
    Attacked,
    AttackFunction,
    Clean,
    Network,
    Worst,
    clean_pass,
    logits_of,
    refuse_training,
)
from ipvit.perturb.budget import Budget


def run_attack(
    attack: AttackFunction,
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with any function; it is given the images that are right, as FGSM and PGD are.

    Args:
        attack: makes the images that are shown to the network; that they are within the budget is not checked.
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        budget: how far images may be moved.
        key: ``(B,)`` keys, one for each image.
        clean: from :func:`clean_pass`; one pass serves every budget.

    Raises:
        ValueError: the network is in training mode.
    """
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if len(rows) and budget.size > 0:
        with torch.enable_grad():
            moved = attack(network, images[rows], labels[rows], budget, key[rows.cpu().numpy()]).detach()
        worst.take(rows, moved, logits_of(network, moved), always=True)
    return worst.found()
