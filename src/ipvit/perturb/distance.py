"""How far images were moved, back into a budget, and random noise that uses one up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.budget import Budget, Norm
from ipvit.perturb.seeding import generator
from ipvit.perturb.tensors import from_numpy

ROUNDING = 2.0**-24
"""The steps of float32 between 0.5 and 1: so far apart is what float32 makes of the same pixel in two ways."""


def distances(images: Tensor, moved: Tensor, norm: Norm, *, rounding: float = 0.0) -> Tensor:
    """Return the norm of the difference of every two images, ``(B,)`` float64.

    Args:
        images: ``(B, 3, H, W)``.
        moved: ``(B, 3, H, W)``.
        norm: which.
        rounding: so much less counts the difference of every pixel, down to 0.
    """
    return _norms((_exact(moved) - _exact(images)).abs().sub(rounding).clamp(min=0), norm)


def within(images: Tensor, moved: Tensor, budget: Budget) -> Tensor:
    """Move images back towards the originals where they are out of a budget; all others stay as they are.

    The norm of what is returned, computed in float64, is at most the budget's size, not that plus a rounding error.

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1], the originals.
        moved: ``(B, 3, H, W)`` float32 in [0, 1].
        budget: how far they may be.
    """
    exact = _exact(images)
    change = _exact(moved) - exact
    if budget.norm == "linf":
        change = change.clamp(-budget.size, budget.size)
    else:
        norms = _norms(change.abs(), budget.norm).view(-1, 1, 1, 1)
        too_far = norms > budget.size
        shrunk = change * (budget.size / norms.clamp(min=torch.finfo(norms.dtype).tiny) * (1 - 2.0**-40))
        change = torch.where(too_far, shrunk, change)
    near, found = images.to(exact.device), (exact + change).to(images.dtype)
    for _ in range(2):  # one step repairs the rounding to float32, a second one that of the sum itself
        found = torch.where((found.double() - exact).abs() > change.abs(), torch.nextafter(found, near), found)
    return found.to(images.device)


def random_noise(images: Tensor, budget: Budget, key: np.ndarray) -> Tensor:
    """Return images with random noise that uses up a budget, as far as they stay in [0, 1].

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1].
        budget: ``linf`` adds or subtracts its size in every value at random; ``l2`` goes in a direction drawn from a
            normal distribution, ``l1`` in one drawn from a Laplace distribution.
        key: ``(B,)`` keys from :func:`ipvit.perturb.seeding.keys`.
    """
    drawn = np.stack([_direction(generator(one), budget.norm, tuple(images.shape[1:])) for one in key])
    direction = from_numpy(drawn)
    direction /= _norms(direction.abs(), budget.norm).view(-1, 1, 1, 1)
    exact = _exact(images)
    moved = (exact + budget.size * direction.to(exact.device)).clamp(0, 1)
    return within(images, moved.to(images), budget)


def _direction(random: np.random.Generator, norm: Norm, shape: tuple[int, ...]) -> np.ndarray:
    if norm == "linf":
        return random.integers(0, 2, shape) * 2.0 - 1
    return random.standard_normal(shape) if norm == "l2" else random.laplace(size=shape)


def _norms(sizes: Tensor, norm: Norm) -> Tensor:
    flat = sizes.flatten(1)
    if norm == "linf":
        return flat.amax(dim=1)
    return flat.sum(dim=1) if norm == "l1" else flat.square().sum(dim=1).sqrt()


def _exact(images: Tensor) -> Tensor:
    """Return images as float64, where the device can hold that."""
    return images.detach().to("cpu" if images.device.type == "mps" else images.device, torch.float64)
