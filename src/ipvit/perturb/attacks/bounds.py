"""Where in a ball around images an attack starts and ends, to the last digit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.budget import LEVELS
from ipvit.perturb.tensor_words import uniform


def linf_bounds(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest pixel values within ``epsilon / 255`` of images and within [0, 1].

    The bounds are rounded inwards, so the true difference of an image between them to the original is at most
    ``epsilon / 255``, not that plus a rounding error.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        epsilon: radius in 255ths.
    """
    if not 0 <= epsilon <= LEVELS:
        raise ValueError(f"epsilon is a number of 255ths, from 0 to 255, not {epsilon!r}")
    radius = epsilon / LEVELS
    exact = images.detach().to("cpu" if images.device.type == "mps" else images.device, torch.float64)
    low, high = ((exact + sign * radius).clamp(0, 1).to(images.dtype) for sign in (-1, 1))
    for _ in range(2):  # one step repairs the rounding to float32, a second one that of the sum itself
        low = torch.where(exact - low > radius, torch.nextafter(low, torch.ones_like(low)), low)
        high = torch.where(high - exact > radius, torch.nextafter(high, torch.zeros_like(high)), high)
    return low.to(images.device), high.to(images.device)


def random_starts(key: np.ndarray, size: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Return uniform noise in [-1, 1], ``(B, *size)`` float32: every key's own, whatever the others.

    Args:
        key: ``(B,)`` keys.
        size: of an image.
        device: where it is made, the processor by default; the same bit for bit everywhere.
    """
    return uniform(key, size, device or torch.device("cpu")).mul_(2).sub_(1)
