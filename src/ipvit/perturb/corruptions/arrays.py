"""What the families of corruptions share: number formats, random streams, filters and the corner-aligned zoom."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ipvit.perturb.tensors import from_numpy

T = TypeVar("T")

_LEVELS_16 = 257
"""Levels of 16 bits to one of 8."""


def random_state(key: int | np.uint64, name: str, severity: int) -> np.random.RandomState:
    """Return the random stream of one corruption of one image.

    numpy freezes the stream of ``RandomState`` for good, so an image comes out the same under every version. The
    original code, with ``np.random`` set to this state, draws the same numbers in the same order.

    Args:
        key: the image's key, for example from :func:`ipvit.perturb.keys`.
        name: the corruption.
        severity: 1 to 5.
    """
    digest = hashlib.blake2b(f"{int(key)}/{name}/{severity}".encode(), digest_size=32).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))


def level(values: Sequence[T], severity: object) -> T:
    """Return the value for a severity, counted from 1; ValueError for a severity that there is not."""
    if not isinstance(severity, int | np.integer) or not 1 <= severity <= len(values):
        raise ValueError(f"severity must be a whole number from 1 to {len(values)}, not {severity!r}")
    return values[severity - 1]


def unit(image: np.ndarray) -> np.ndarray:
    """Return an image of bytes as float64 in [0, 1]."""
    return image / 255.0


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Return an image in [0, 1] as bytes: clipped, then cut off (not rounded), as the original does."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def gaussian_kernel(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """Return the sampled Gaussian of ``2 * round(truncate * sigma) + 1`` taps, sum 1, float64."""
    radius = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a float64 image ``(H, W)`` or ``(H, W, 3)``, edges repeated, cut off at four standard deviations."""
    taps = gaussian_kernel(sigma)
    return cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)


def motion_line(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Blur along a line as ImageMagick's ``MotionBlurImage`` does.

    The kernel is one half of a Gaussian: tap ``i`` of ``2 * radius + 1`` weighs ``exp(-i^2 / 2 sigma^2)`` and lies
    ``i`` pixels from the pixel in the direction of ``angle``, to the nearest whole pixel. Edges are repeated.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` bytes.
        radius: in pixels.
        sigma: in pixels.
        angle: in degrees, clockwise from the right.

    Returns:
        bytes of the same shape, cut off: ImageMagick keeps 16 bits, of which its PNG files, through which the original
        goes, have the upper 8.
    """
    weights = line_weights(radius, sigma)
    down, across = (offsets[0] for offsets in line_offsets(radius, np.array([angle])))
    left, top = int(across.min()), int(down.min())
    kernel = np.zeros((int(down.max()) - top + 1, int(across.max()) - left + 1), np.float32)
    np.add.at(kernel, (down - top, across - left), weights)
    # in float: filter2D takes twice as long on bytes
    blurred = cv2.filter2D(image.astype(np.float32), -1, kernel, anchor=(-left, -top), borderType=cv2.BORDER_REPLICATE)
    sixteen_bits = np.clip(np.rint(blurred * _LEVELS_16), 0, 65_535)
    return np.floor_divide(sixteen_bits, _LEVELS_16).astype(np.uint8)


def line_weights(radius: int, sigma: float) -> np.ndarray:
    """Return the weights of a motion blur's taps, sum 1, ``(2 * radius + 1,)`` float64."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2.0 * sigma**2))
    return weights / weights.sum()


def line_offsets(radius: int, angles: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many pixels down and to the right a motion blur's taps lie, ``(n, 2 * radius + 1)`` each.

    Args:
        radius: in pixels.
        angles: ``(n,)`` in degrees.
    """
    steps = np.arange(2 * radius + 1)
    turns = [math.radians(angle) for angle in angles]
    down, across = (
        np.ceil(steps * np.array([along(turn) for turn in turns])[:, None] - 0.5).astype(np.int64)
        for along in (math.sin, math.cos)
    )
    return down, across


def zoom(planes: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of planes ``(1, C, H, W)`` by ``factor`` >= 1, linearly, to the same size.

    ``ceil(side / factor)`` pixels are cut out and enlarged so that the outer pixels' *centres* stay the outer
    pixels' centres (``scipy.ndimage.zoom`` of order 1); what is then larger than the image is cut off.
    """
    height, width = planes.shape[-2:]
    (top, rows, tall, above), (left, columns, wide, before) = (zoomed(side, factor) for side in (height, width))
    middle = planes[..., top : top + rows, left : left + columns]
    large = F.interpolate(middle, size=(tall, wide), mode="bilinear", align_corners=True)
    return large[..., above : above + height, before : before + width]


def zoomed(side: int, factor: float) -> tuple[int, int, int, int]:
    """Return where the part begins that is enlarged, how long it is, how long it becomes, and where that is cut off."""
    inside = math.ceil(side / factor)
    enlarged = round(inside * factor)
    return (side - inside) // 2, inside, enlarged, (enlarged - side) // 2


def to_planes(image: np.ndarray) -> Tensor:
    """Return ``(H, W, C)`` as a contiguous ``(1, C, H, W)`` tensor: interpolation is slow on any other layout."""
    return from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def from_planes(planes: Tensor) -> np.ndarray:
    """Return ``(1, C, H, W)`` as ``(H, W, C)``."""
    return planes[0].numpy().transpose(1, 2, 0)
