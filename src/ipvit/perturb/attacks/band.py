"""Perturbations of some spatial frequencies only: gradient ascent in a band of the discrete cosine transform."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from ipvit.perturb.attacks.balls import ball_around
from ipvit.perturb.attacks.common import (
    Attacked,
    Clean,
    Network,
    Worst,
    clean_pass,
    logits_and_gradient,
    logits_of,
    refuse_training,
)
from ipvit.perturb.budget import Budget

Band = Literal["low", "high"]
"""Frequencies up to the cut-off, or those above it."""

_STEP = 0.25
"""Length of a step as a share of the budget."""


def band_limited(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    band: Band,
    cutoff: float = 0.25,
    steps: int = 20,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with perturbations of low or high frequencies; only images that are still right go on.

    Nothing is random: the search begins at the images. The perturbation is scaled into the budget as a whole, which
    leaves its frequencies as they are; what is shown is clipped to [0, 1], which alone adds others.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf or l2.
        band: which frequencies.
        cutoff: the highest low frequency, as a share of the highest there is, along the diagonal.
        steps: gradient steps.
        clean: from :func:`clean_pass`; one pass serves every budget and attack.

    Raises:
        ValueError: the network is in training mode, or has no gradient; the budget is in l1.
    """
    if budget.norm == "l1" or not 0 < cutoff < 1 or steps < 1:
        raise ValueError(f"band-limited attacks take linf or l2, a cut-off between 0 and 1 and steps, not {budget}")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if not len(rows) or budget.size == 0:
        return worst.found()
    ball = ball_around(images[rows], budget)
    change, x = torch.zeros_like(images[rows]), images[rows]
    for step in range(steps):
        _, gradient = logits_and_gradient(network, x, labels[rows])
        if step == 0:
            worst.note_zero_gradient(rows, gradient)
        uphill = in_band(gradient, band, cutoff)
        change = _scaled(change + _STEP * budget.size * uphill / _size(uphill, budget).clamp(min=1e-30), budget)
        x = ball.settle((images[rows] + change).clamp(0, 1))
        still = worst.take(rows, x, logits_of(network, x))
        if not bool(still.all()):
            kept = torch.where(still)[0]
            if not len(kept):
                break
            rows, change, x, ball = rows[kept], change[kept], x[kept], ball.part(kept)
    return worst.found()


def in_band(values: Tensor, band: Band, cutoff: float) -> Tensor:
    """Return the part of ``(B, C, H, W)`` that is made of low or of high frequencies; the two add up to the whole.

    Args:
        values: any pictures.
        band: which frequencies.
        cutoff: the highest low frequency, as a share of the highest there is, along the diagonal.
    """
    height, width = values.shape[-2:]
    down, across = (_cosines(side).to(values) for side in (height, width))
    frequency = torch.hypot(
        torch.arange(height, device=values.device)[:, None] / max(height - 1, 1),
        torch.arange(width, device=values.device)[None, :] / max(width - 1, 1),
    ) / math.sqrt(2)
    kept = frequency <= cutoff if band == "low" else frequency > cutoff
    return down.T @ ((down @ values @ across.T) * kept) @ across


@functools.lru_cache(maxsize=8)
def _cosines(side: int) -> Tensor:
    """Return the orthonormal discrete cosine transform (DCT-II), ``(side, side)`` float64."""
    place = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * (place[None, :] + 0.5) * place[:, None] / side) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


def _size(change: Tensor, budget: Budget) -> Tensor:
    flat = change.flatten(1)
    size = flat.abs().amax(dim=1) if budget.norm == "linf" else flat.square().sum(dim=1).sqrt()
    return size.view(-1, 1, 1, 1)


def _scaled(change: Tensor, budget: Budget) -> Tensor:
    return change * (budget.size / _size(change, budget).clamp(min=budget.size))
