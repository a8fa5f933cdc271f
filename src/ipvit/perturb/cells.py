"""The cells of a grid over an image: where their borders are, and which grids have cells of one size.

A grid needs not divide the image: its borders lie at rounded positions, so that the cells of a row or column differ by
one pixel at most. What moves cells about needs cells of one size, :func:`cell_size`.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ipvit.perturb.tensors import from_numpy


def cell_borders(length: int, cells: int) -> np.ndarray:
    """Return where the cells of a row or column begin and the last one ends, ``(cells + 1,)`` pixels.

    Border ``i`` is ``i * length / cells``, rounded to the nearest pixel, halves up.

    Args:
        length: pixels.
        cells: how many; at most one a pixel.

    >>> cell_borders(64, 8).tolist(), cell_borders(10, 4).tolist()
    ([0, 8, 16, 24, 32, 40, 48, 56, 64], [0, 3, 5, 8, 10])
    """
    return (2 * length * np.arange(cells + 1) + cells) // (2 * cells)


def check_cells(image_size: tuple[int, int], grid: tuple[int, int]) -> None:
    """Check that every cell of a grid holds a pixel.

    Raises:
        ValueError: the grid has more rows or columns than the image; names the finest grid.
    """
    (height, width), (rows, columns) = image_size, grid
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"a grid of {rows}x{columns} has more cells than an image of {height}x{width} pixels has room for; "
            f"{min(rows, height)}x{min(columns, width)} would fit"
        )


def divides(image_size: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Return whether all cells of a grid have one size."""
    return all(cells >= 1 and length % cells == 0 for length, cells in zip(image_size, grid, strict=True))


def cell_size(image_size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return height and width in pixels of the cells of a grid that divides the image.

    Raises:
        ValueError: it does not; names the nearest that does.
    """
    if not divides(image_size, grid):
        rows, columns = nearest_dividing(image_size, grid)
        raise ValueError(
            f"a grid of {grid[0]}x{grid[1]} does not divide an image of {image_size[0]}x{image_size[1]} pixels; "
            f"{rows}x{columns} would"
        )
    return image_size[0] // grid[0], image_size[1] // grid[1]


def nearest_dividing(image_size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the grid nearest to another one that divides the image; of two rows as near, the fewer.

    >>> nearest_dividing((240, 240), (14, 14)), nearest_dividing((300, 300), (4, 8))
    ((15, 15), (4, 6))
    """
    (height, width), (rows, columns) = image_size, grid
    return _nearest_divisor(height, rows), _nearest_divisor(width, columns)


def stands_for(found: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Tell whether a grid is near enough to another to stand for it: no side a third longer or shorter.

    >>> stands_for((15, 15), (14, 14)), stands_for((2, 2), (7, 7))
    (True, False)
    """
    return all(abs(cells - asked) * 3 <= asked for cells, asked in zip(found, wanted, strict=True))


def pixel_mask(keep: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Enlarge cell masks ``(B, rows, columns)`` to pixel masks ``(B, 1, H, W)``.

    Raises:
        ValueError: there are more cells than pixels.
    """
    check_cells(image_size, (keep.shape[-2], keep.shape[-1]))
    for dim, length in ((-2, image_size[0]), (-1, image_size[1])):
        cells = keep.shape[dim]
        if length % cells == 0:  # no sizes to send to the device
            keep = keep.repeat_interleave(length // cells, dim=dim)
        else:
            keep = keep.index_select(dim, _cell_of_each_pixel(length, cells).to(keep.device))
    return keep.unsqueeze(-3)


def cell_sums(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the sum of pixel values over every cell.

    Args:
        values: ``(B, H, W)``.
        grid: rows and columns, at most one a pixel.

    Returns:
        ``(B, rows, columns)``.
    """
    for dim, cells in ((1, grid[0]), (2, grid[1])):
        whose = _cell_of_each_pixel(values.shape[dim], cells).to(values.device)
        shape = list(values.shape)
        shape[dim] = cells
        values = values.new_zeros(shape).index_add(dim, whose, values)
    return values


def _cell_of_each_pixel(length: int, cells: int) -> Tensor:
    return from_numpy(np.repeat(np.arange(cells), np.diff(cell_borders(length, cells))))


def _nearest_divisor(n: int, wanted: int) -> int:
    return min((d for d in range(1, n + 1) if n % d == 0), key=lambda d: (abs(d - wanted), d))
