"""Which pixels of an image one condition of the occlusion experiment hides."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.base import Batch
from ipvit.experiments.grids import rows_and_columns
from ipvit.experiments.occlusion.salience import Salience
from ipvit.perturb.patchdrop import n_dropped, random_keep
from ipvit.perturb.salience import non_salient_keep, salient_keep
from ipvit.perturb.seeding import keys, random_words
from ipvit.perturb.tensors import from_numpy


def kept_cells(batch: Batch, mode: str, level: float, grid: str, key: np.ndarray, salience: Salience) -> Tensor:
    """Return which cells stay, ``(B, rows, columns)`` boolean, for a mode on a grid."""
    size = rows_and_columns(grid)
    if mode == "random":
        return from_numpy(random_keep(key, size, n_dropped(level, size[0] * size[1]))).to(batch.images.device)
    keep = salient_keep if mode == "salient" else non_salient_keep
    return keep(salience.maps(batch, size), level)


def with_one_left(keep: Tensor, batch: Batch, grid: str, salience: Salience) -> Tensor:
    """Return masks in which an image that lost all its cells keeps the least salient one, the last to be dropped."""
    empty = ~keep.flatten(1).any(dim=1)
    if not bool(empty.any()):
        return keep
    maps = salience.maps(batch, rows_and_columns(grid)).flatten(1)
    last = F.one_hot(maps.argmin(dim=1), maps.shape[1]).bool() & empty.unsqueeze(1)
    return keep | last.view_as(keep)


def kept_pixels(batch: Batch, mode: str, level: float, key: np.ndarray) -> Tensor:
    """Return which pixels stay, ``(B, 1, H, W)`` boolean, for a mode that hides a rectangle.

    ``block`` hides one rectangle with the image's aspect ratio and a share ``level`` of its area, at a random place;
    ``object`` hides a share ``level`` of the area of the object's bounding box, around the box's centre.
    """
    height, width = batch.images.shape[-2:]
    mask = torch.ones(len(batch), 1, height, width, dtype=torch.bool)
    for row, box in enumerate(_boxes(batch, mode, level, key)):
        top, left, bottom, right = box
        mask[row, 0, top:bottom, left:right] = False
    return mask.to(batch.images.device)


def _boxes(batch: Batch, mode: str, level: float, key: np.ndarray) -> list[tuple[int, int, int, int]]:
    height, width = batch.images.shape[-2:]
    if mode == "block":
        tall, wide = round(height * math.sqrt(level)), round(width * math.sqrt(level))
        places = random_words(key, 2).astype(np.float64) / 2**64
        return [
            (top := int(y * (height - tall + 1)), left := int(x * (width - wide + 1)), top + tall, left + wide)
            for y, x in places
        ]
    if batch.masks is None:
        raise InputError("occlusion: the mode 'object' needs foreground masks, which the data does not have")
    return [_shrunk(mask, math.sqrt(level)) for mask in batch.masks]


def _shrunk(mask: Tensor, scale: float) -> tuple[int, int, int, int]:
    """Bounding box of a mask, its sides scaled around its centre."""
    rows, columns = (torch.where(mask.any(dim=axis))[0] for axis in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    (top, bottom), (left, right) = ((int(x[0]), int(x[-1]) + 1) for x in (rows, columns))
    tall, wide = round((bottom - top) * scale), round((right - left) * scale)
    top, left = (top + bottom - tall) // 2, (left + right - wide) // 2
    return top, left, top + tall, left + wide


def donated(batch: Batch, *words: object) -> Tensor:
    """Return for every image another image of the data set, ``(B, 3, H, W)``, chosen by its id and the words."""
    if batch.donors is None or len(batch.donor_ids) < 2:
        raise InputError("occlusion: filling with other images needs at least two readable images")
    choice = (random_words(keys(batch.ids, "donor", *words), 1)[:, 0] % np.uint64(len(batch.donor_ids))).astype(int)
    for row, image_id in enumerate(batch.ids):
        if batch.donor_ids[choice[row]] == image_id:
            choice[row] = (choice[row] + 1) % len(batch.donor_ids)
    return batch.donors[from_numpy(choice)]
