"""Masks and orders made where the images are: a GPU is sent a key of 8 bytes an image, and no masks.

They are those of :mod:`ipvit.perturb.patchdrop` and :mod:`ipvit.perturb.seeding` bit for bit, see
:mod:`ipvit.perturb.tensor_words`. On a processor numpy makes them, which is faster there.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.patchdrop import bernoulli_keep as keep_by_chance_by_numpy
from ipvit.perturb.patchdrop import random_keep as keep_by_numpy
from ipvit.perturb.seeding import random_order as order_by_numpy
from ipvit.perturb.tensor_words import in_order, random_words, shifted
from ipvit.perturb.tensors import from_numpy


def random_keep(key: np.ndarray, grid: tuple[int, int], n_drop: int, device: torch.device) -> Tensor:
    """Return the masks of :func:`ipvit.perturb.patchdrop.random_keep`, ``(B, rows, columns)`` boolean, on a device."""
    rows, columns = grid
    if device.type == "cpu":
        return from_numpy(keep_by_numpy(key, grid, n_drop))
    if not 0 <= n_drop <= rows * columns:
        raise ValueError(f"cannot drop {n_drop} cells of a grid of {rows}x{columns}")
    if not n_drop:
        return torch.ones(len(key), rows, columns, dtype=torch.bool, device=device)
    words = in_order(random_words(key, rows * columns, device))
    # the words of one key differ, so the one with number n_drop divides them
    last = torch.kthvalue(words, n_drop, dim=1, keepdim=True).values
    return (words > last).view(-1, rows, columns).to(device)


def bernoulli_keep(key: np.ndarray, grid: tuple[int, int], rate: float, device: torch.device) -> Tensor:
    """Return the masks of :func:`ipvit.perturb.patchdrop.bernoulli_keep`, likewise."""
    if device.type == "cpu":
        return from_numpy(keep_by_chance_by_numpy(key, grid, rate))
    if not 0 <= rate <= 1:
        raise ValueError(f"a probability lies in [0, 1], not {rate}")
    words = shifted(random_words(key, grid[0] * grid[1], device), 11)
    return (words >= math.ceil(rate * 2.0**53)).view(-1, *grid).to(device)


def random_order(key: np.ndarray, n: int, device: torch.device) -> Tensor:
    """Return the permutations of :func:`ipvit.perturb.seeding.random_order`, ``(B, n)``, likewise."""
    if device.type == "cpu":
        return from_numpy(order_by_numpy(key, n))
    return torch.argsort(in_order(random_words(key, n, device)), dim=1, stable=True).to(device)
