"""Blur: defocus, glass, motion, zoom and Gaussian (Hendrycks & Dietterich 2019).

All lengths are in pixels, whatever the size of the image, as in the original.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ipvit.perturb.corruptions.arrays import (
    from_planes,
    gaussian,
    level,
    motion_line,
    to_bytes,
    to_planes,
    unit,
    zoom,
)

ZOOM_FACTORS = (  # arange, as the original writes it: its rounding decides whether the end belongs
    np.arange(1, 1.11, 0.01),
    np.arange(1, 1.16, 0.01),
    np.arange(1, 1.21, 0.02),
    np.arange(1, 1.26, 0.02),
    np.arange(1, 1.31, 0.03),
)

DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
GAUSSIAN = (1, 2, 3, 4, 6)
"""Radius and smoothing of the disk; sigma, in pixels."""

GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
MOTION_ANGLES = (-45, 45)
"""Sigma, largest displacement and passes; radius and sigma of the line; in pixels, and in degrees."""


def defocus_blur(image: np.ndarray, severity: int) -> np.ndarray:
    """Average over a disk of radius 3, 4, 6, 8, 10 whose rim is smoothed with sigma 0.1, then 0.5: out of focus.

    Args:
        image: ``(H, W, 3)`` bytes; mirrored at its edges, the outermost pixel not repeated.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    radius, smooth = level(DEFOCUS, severity)
    return to_bytes(cv2.filter2D(unit(image), -1, disk(radius, smooth), borderType=cv2.BORDER_REFLECT_101))


@lru_cache
def disk(radius: int, smooth: float) -> np.ndarray:
    """Return the weights of a disk of a radius in pixels, float32, its rim smoothed."""
    reach, width = (8, 3) if radius <= 8 else (radius, 5)
    offsets = np.arange(-reach, reach + 1)
    inside = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float32)
    weights: NDArray[np.float32] = inside / inside.sum()
    return cv2.GaussianBlur(weights, ksize=(width, width), sigmaX=smooth)


def glass_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Blur, displace every pixel by a few pixels several times, and blur again: frosted glass.

    Sigma, largest displacement and passes: (0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2). The original
    means to swap each pixel with its neighbour, from the last to the first, but numpy's views make it *copy* the
    neighbour. The published images have that, and so has this function.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    sigma, reach, passes = level(GLASS, severity)
    blurred = to_bytes(gaussian(unit(image), sigma))
    height, width = image.shape[:2]
    rows, columns = max(0, height - 2 * reach), max(0, width - 2 * reach)
    # the original visits pixels from the last to the first, drawing (dx, dy) for each
    moves = random.randint(-reach, reach, size=(passes, rows, columns, 2))[:, ::-1, ::-1]
    pixels: int = height * width
    source = np.arange(pixels)
    for move in moves[::-1]:  # what the last pass reads, the passes before it have written
        source = _sources(move, (height, width), reach)[source]
    displaced = blurred.reshape(-1, 3)[source].reshape(image.shape)
    return to_bytes(gaussian(unit(displaced), sigma))


def _sources(move: np.ndarray, size: tuple[int, int], reach: int) -> NDArray[np.int_]:
    """Return for every pixel the pixel whose value it holds after one pass of copying.

    A pixel copies from its neighbour, which holds its own value if it comes earlier in the image (it is visited
    later), and what it copied itself if it comes later. The pixels thus form chains; each is followed to its end, all
    at once, every step twice as long as the one before.

    Args:
        move: ``(rows, columns, 2)`` displacements (dx, dy) of the pixels that move.
        size: height and width of the image.
        reach: the moving pixels begin ``reach + 1`` pixels from the top and left edge.

    Returns:
        ``(H * W,)`` indices.
    """
    height, width = size
    n = height * width
    pixel = np.arange(n).reshape(size)
    visited = np.zeros(size, dtype=bool)
    moving = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    visited[moving] = True
    link = pixel + n  # n and above: the end of a chain
    neighbour = pixel[moving] + move[..., 1] * width + move[..., 0]
    goes_on = visited.ravel()[neighbour] & (neighbour > pixel[moving])
    link[moving] = np.where(goes_on, neighbour, neighbour + n)
    link = link.ravel()
    open_ends = np.flatnonzero(link < n)
    while len(open_ends):
        link[open_ends] = link[link[open_ends]]
        open_ends = open_ends[link[open_ends] < n]
    return link - n


def motion_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Blur along a line at an angle drawn from [-45, 45] degrees.

    Radius and sigma: (10, 3), (15, 5), (15, 8), (15, 12), (20, 15); see
    :func:`ipvit.perturb.corruptions.arrays.motion_line` for the kernel, which is ImageMagick's.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    radius, sigma = level(MOTION, severity)
    return motion_line(image, radius, sigma, random.uniform(*MOTION_ANGLES))


def zoom_blur(image: np.ndarray, severity: int) -> np.ndarray:
    """Average the image with its enlargements up to 1.1, 1.15, 1.2, 1.25, 1.3 in steps of 0.01, 0.01, 0.02, 0.02, 0.03.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    factors = level(ZOOM_FACTORS, severity)
    planes = to_planes(unit(image).astype(np.float32))
    total = torch.zeros_like(planes)
    for factor in factors:
        total += zoom(planes, float(factor))
    return to_bytes(from_planes((planes + total) / (len(factors) + 1)))


def gaussian_blur(image: np.ndarray, severity: int) -> np.ndarray:
    """Blur with a Gaussian of sigma 1, 2, 3, 4, 6, edges repeated.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    return to_bytes(gaussian(unit(image), level(GAUSSIAN, severity)))
