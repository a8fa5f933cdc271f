"""The fast gradient sign method within an l-infinity ball (Goodfellow et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from ipvit.perturb.attacks.bounds import linf_bounds
from ipvit.perturb.attacks.common import Attacked, Clean, Network, Worst, clean_pass, logits_of, refuse_training
from ipvit.perturb.budget import LEVELS


def fgsm(network: Network, images: Tensor, labels: Tensor, epsilon: float, *, clean: Clean | None = None) -> Attacked:
    """Attack with one step of size ``epsilon / 255`` along the sign of the gradient (Goodfellow et al. 2015).

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        epsilon: radius in 255ths.
        clean: from :func:`clean_pass` with gradient; one pass serves every epsilon.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    refuse_training(network)
    clean = clean if clean is not None and clean.gradient is not None else clean_pass(network, images, labels)
    assert clean.gradient is not None
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if len(rows) and epsilon > 0:
        low, high = linf_bounds(images[rows], epsilon)
        gradient = clean.gradient[rows]
        worst.note_zero_gradient(rows, gradient)
        moved = (images[rows] + epsilon / LEVELS * gradient.sign()).clamp(low, high)
        worst.take(rows, moved, logits_of(network, moved), always=True)
    return worst.found()
