"""Projected gradient descent within an l-infinity ball (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ipvit.perturb.attacks.bounds import linf_bounds
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
from ipvit.perturb.budget import LEVELS


def pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 5,
    step_size: float = 0.5,
    restarts: int = 1,
    starts: Callable[[int], Tensor] | None = None,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with projected gradient steps (Madry et al. 2018); only images that are still right go on.

    A step is a fixed share of epsilon and the first restarts are the same whatever their number, so more steps or
    restarts try all that fewer would have tried: they never leave more images right.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        epsilon: radius in 255ths.
        steps: gradient steps per restart.
        step_size: length of a step as a share of epsilon.
        restarts: how often an image that is still right is attacked from another start.
        starts: for a restart's number, where to start in the ball: ``(B, 3, H, W)`` in [-1, 1] (see
            :func:`random_starts`); None starts at the images themselves.
        clean: from :func:`clean_pass`; one pass serves every epsilon.

    Raises:
        ValueError: the network is in training mode, or has no gradient; restarts without random starts.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"PGD needs at least one step and one restart, not {steps} and {restarts}")
    if restarts > 1 and starts is None:
        raise ValueError("restarts without a random start would all be the same")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=starts is None)
    worst = Worst(images, labels, clean)
    if epsilon == 0:
        return worst.found()
    radius = epsilon / LEVELS
    for restart in range(restarts):
        rows = worst.still_right()
        if not len(rows):
            break
        low, high = linf_bounds(images[rows], epsilon)
        x, gradient = images[rows], None
        if starts is not None:
            x = (x + radius * starts(restart)[rows].to(x)).clamp(low, high)
        elif clean.gradient is not None:
            gradient = clean.gradient[rows]
        for step in range(steps):
            if gradient is None:
                logits, gradient = logits_and_gradient(network, x, labels[rows])
                kept = worst.take(rows, x, logits)
                if not bool(kept.all()):  # else there is nothing to leave out, and no copies are made
                    rows, x, low, high, gradient = (values[kept] for values in (rows, x, low, high, gradient))
                if not len(rows):
                    break
            if step == 0:
                worst.note_zero_gradient(rows, gradient)
            x = gradient.sign().mul_(step_size * radius).add_(x).clamp_(low, high)
            gradient = None
        if len(rows):
            worst.take(rows, x, logits_of(network, x))
    return worst.found()
