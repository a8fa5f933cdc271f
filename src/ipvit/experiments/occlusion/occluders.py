"""Which pixels of an image one condition of the occlusion experiment hides."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.base import Batch
from ipvit.experiments.grids import rows_and_columns
from ipvit.experiments.occlusion.salience import Salience
from ipvit.metrics.exact import double
from ipvit.perturb.on_device import random_keep
from ipvit.perturb.patchdrop import n_dropped
from ipvit.perturb.salience import non_salient_keep, salient_keep
from ipvit.perturb.seeding import keys, random_words
from ipvit.perturb.tensors import from_numpy


def kept_cells(batch: Batch, mode: str, level: float, grid: str, key: np.ndarray, salience: Salience) -> Tensor:
    """Return which cells stay, ``(B, rows, columns)`` boolean, for a mode on a grid."""
    size = rows_and_columns(grid)
    if mode == "random":
        return random_keep(key, size, n_dropped(level, size[0] * size[1]), batch.images.device)
    keep = salient_keep if mode == "salient" else non_salient_keep
    return keep(salience.maps(batch, size), level, check=False)  # they were checked when they were made


def with_one_left(keep: Tensor, batch: Batch, grid: str, salience: Salience) -> Tensor:
    """Return masks in which an image that lost all its cells keeps the least salient one, the last to be dropped."""
    empty = ~keep.flatten(1).any(dim=1, keepdim=True)
    maps = salience.maps(batch, rows_and_columns(grid)).flatten(1)
    last = torch.zeros_like(keep).flatten(1).scatter(1, maps.argmin(dim=1, keepdim=True), empty)
    return keep | last.view_as(keep)


def kept_pixels(batch: Batch, mode: str, level: float, key: np.ndarray) -> Tensor:
    """Return which pixels stay, ``(B, 1, H, W)`` boolean, for a mode that hides a rectangle.

    ``block`` hides one rectangle with the image's aspect ratio and a share ``level`` of its area, at a random place;
    ``object`` hides a share ``level`` of the area of the object's bounding box, around the box's centre.
    """
    height, width = batch.images.shape[-2:]
    if mode == "block":
        down, across = _block(height, width, level, key).to(batch.images.device, non_blocking=True).unbind(2)
    elif batch.masks is None:
        raise InputError("occlusion: the mode 'object' needs foreground masks, which the data does not have")
    else:
        down, across = (_shrunk(batch.masks.any(dim=axis), math.sqrt(level)) for axis in (2, 1))
    hidden = _between(down, height).unsqueeze(2) & _between(across, width).unsqueeze(1)
    return ~hidden.unsqueeze(1)


def _block(height: int, width: int, level: float, key: np.ndarray) -> Tensor:
    """Return where a block of a share of the image begins and ends, ``(B, 2, 2)``: ends x directions."""
    size = np.array([round(side * math.sqrt(level)) for side in (height, width)])
    places = random_words(key, 2).astype(np.float64) / 2**64
    first = (places * (np.array([height, width]) - size + 1)).astype(np.int64)
    return from_numpy(np.stack([first, first + size], axis=1))


def _shrunk(there: Tensor, scale: float) -> Tensor:
    """Return where a mask begins and ends in one direction, its length scaled around its middle, ``(B, 2)``.

    Args:
        there: ``(B, length)``, the rows or columns that the mask has a pixel in; none: nothing lies between the ends.
        scale: factor of the length.
    """
    length = there.shape[1]
    numbers = torch.arange(length, device=there.device)
    first = torch.where(there, numbers, length).amin(dim=1)
    end = torch.where(there, numbers + 1, 0).amax(dim=1)
    kept = torch.where(end > first, double(end - first).mul(scale).round().to(numbers), 0)
    begin = torch.div(first + end - kept, 2, rounding_mode="floor")
    return torch.stack([begin, begin + kept], dim=1)


def _between(ends: Tensor, length: int) -> Tensor:
    """Return which of so many pixels lie between the first and the second of ``(B, 2)`` ends, ``(B, length)``."""
    numbers = torch.arange(length, device=ends.device)
    return (numbers >= ends[:, :1]) & (numbers < ends[:, 1:])


def donated(batch: Batch, *words: object) -> Tensor:
    """Return for every image another image of the data set, ``(B, 3, H, W)``, chosen by its id and the words."""
    if batch.donors is None or len(batch.donor_ids) < 2:
        raise InputError("occlusion: filling with other images needs at least two readable images")
    choice = (random_words(keys(batch.ids, "donor", *words), 1)[:, 0] % np.uint64(len(batch.donor_ids))).astype(int)
    for row, image_id in enumerate(batch.ids):
        if batch.donor_ids[choice[row]] == image_id:
            choice[row] = (choice[row] + 1) % len(batch.donor_ids)
    return batch.donors[from_numpy(choice).to(batch.donors.device, non_blocking=True)]
