"""Patch shuffle: cut the image into cells and reassemble them in another order (section 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.cells import cell_size
from ipvit.perturb.seeding import random_order


def shuffle_order(key: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return one permutation of the grid's cells per key, ``(B, rows * columns)``."""
    return random_order(key, grid[0] * grid[1])


def shuffle(images: Tensor, order: Tensor | np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Put cell ``order[i]`` where cell ``i`` was, counting row by row.

    Args:
        images: ``(B, C, H, W)``; the grid must divide it.
        order: ``(B, rows * columns)``, or ``(rows * columns,)`` for one order on all images.
        grid: rows and columns.

    Returns:
        ``(B, C, H, W)``, the same pixels in other places.

    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> shuffle(image, torch.tensor([3, 2, 1, 0]), (2, 2)).flatten().tolist()
    [3.0, 2.0, 1.0, 0.0]
    """
    batch, channels, height, width = images.shape
    rows, columns = grid
    tall, wide = cell_size((height, width), grid)
    places = torch.as_tensor(order, device=images.device)
    if places.ndim == 1:
        places = places.expand(batch, -1)
    cells = images.view(batch, channels, rows, tall, columns, wide).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(batch, rows * columns, channels, tall, wide)
    moved = cells[torch.arange(batch, device=images.device)[:, None], places]
    moved = moved.view(batch, rows, columns, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return moved.reshape(batch, channels, height, width)
