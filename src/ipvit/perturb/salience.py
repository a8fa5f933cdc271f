"""Salient and non-salient PatchDrop: which patches hold how much of the foreground (section 3.1).

A salience map gives every patch a share of the foreground, for example a DINO network's attention from the class token
to the patches. Level ``m`` is a mass of it: salient PatchDrop drops the fewest patches that hold at least ``m``,
non-salient PatchDrop those that hold the lowest ``m``. Salient at ``m`` and non-salient at ``1 - m`` are complements.
"""

from __future__ import annotations

import torch
from torch import Tensor

IMPROPER = "salience must be finite and not negative"
"""What is said of other salience."""


def improper(salience: Tensor) -> Tensor:
    """Tell whether some salience is negative or not finite, as a tensor of one bool."""
    return ~((salience >= 0) & torch.isfinite(salience)).all()


def salient_keep(salience: Tensor, mass: float, *, check: bool = True) -> Tensor:
    """Return masks that drop the fewest patches holding at least ``mass`` of the salience.

    Args:
        salience: ``(B, ...)`` non-negative, for example ``(B, rows, columns)``.
        mass: in [0, 1]; 0 drops nothing, 1 drops every patch.
        check: see that the salience is finite and not negative, for which the processor waits for a GPU; who calls this
            for many masses may look at :func:`improper` once.

    Returns:
        Boolean, the shape of ``salience``, True where a patch is kept.

    Raises:
        ValueError: the salience or the mass is out of range.
    """
    return _cumulative_below(salience, 1 - _checked(mass), check)


def non_salient_keep(salience: Tensor, mass: float, *, check: bool = True) -> Tensor:
    """Return masks that drop the patches holding the lowest ``mass`` of the salience; see :func:`salient_keep`."""
    return ~_cumulative_below(salience, _checked(mass), check)


def mass_mask(salience: Tensor, mass: float, *, check: bool = True) -> Tensor:
    """Return the foreground at a threshold: the fewest patches that hold at least ``mass`` of the salience."""
    return ~salient_keep(salience, mass, check=check)


def _cumulative_below(salience: Tensor, share: float, check: bool) -> Tensor:
    """True for the least salient patches, up to those that together hold at most ``share``."""
    on_cpu = salience.device.type == "mps"  # Apple's GPU has no float64
    flat = (salience.cpu() if on_cpu else salience).flatten(1).double()
    if check and bool(improper(flat)):
        raise ValueError(IMPROPER)
    if share <= 0:
        return torch.zeros_like(salience, dtype=torch.bool)
    if share >= 1:
        return torch.ones_like(salience, dtype=torch.bool)
    order = flat.argsort(dim=1, stable=True)
    total = flat.sum(dim=1, keepdim=True)
    sorted_share = flat.gather(1, order).cumsum(dim=1) / total.clamp(min=torch.finfo(torch.float64).tiny)
    # the tolerance: a tenth of equal patches is a tenth, also as 1 - 0.9 and after rounding
    below = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, sorted_share <= share + 1e-9)
    return below.view_as(salience).to(salience.device)


def _checked(mass: float) -> float:
    if not 0 <= mass <= 1:
        raise ValueError(f"a mass lies in [0, 1], not {mass}")
    return mass
