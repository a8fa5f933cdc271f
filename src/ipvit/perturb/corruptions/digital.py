"""Digital: contrast, elastic transform, pixelate, JPEG and saturation (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ipvit.perturb.corruptions.arrays import gaussian_kernel, level, to_bytes, unit

CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG = (25, 18, 15, 10, 7)
SATURATE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
"""What remains of the distance to the mean, of the size; the quality; factor and summand of the saturation."""

ELASTIC = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
"""Strength and sigma of the field and reach of the points, as shares of 244 pixels at 224."""


def contrast(image: np.ndarray, severity: int) -> np.ndarray:
    """Move every channel towards its mean: 0.4, 0.3, 0.2, 0.1, 0.05 of the distance remain.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    remains = level(CONTRAST, severity)
    means = unit(image).mean(axis=(0, 1))
    table = to_bytes((np.arange(256)[:, None] / 255.0 - means) * remains + means)
    return cv2.LUT(image, table[None])


def elastic_transform(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Pull three points of the image to random places, then displace every pixel along a smooth random field.

    Strength and sigma of the field and reach of the points, as shares of 244 pixels: (2, 0.7, 0.1), (2, 0.08, 0.2),
    (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02). 244 is the original's slip for its 224 pixels, kept
    because the published images have it; for other sizes it is scaled with the shorter side. In images that are not
    square the three points lie around the middle.

    Args:
        image: ``(H, W, 3)`` bytes; mirrored at its edges.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    height: int
    width: int
    height, width = image.shape[:2]
    strength, sigma, reach = elastic_lengths(severity, (height, width))
    points = elastic_points((height, width)).astype(np.float32)
    moved = points + random.uniform(-reach, reach, size=points.shape).astype(np.float32)
    values = unit(image).astype(np.float32)
    values = cv2.warpAffine(
        values, cv2.getAffineTransform(points, moved), (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    across, down = (_smooth(random.uniform(-1, 1, size=(height, width)), sigma) * strength for _ in range(2))
    across += np.arange(width)
    down += np.arange(height)[:, None]
    return to_bytes(
        cv2.remap(
            values,
            across.astype(np.float32),
            down.astype(np.float32),
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
    )


def elastic_lengths(severity: int, size: tuple[int, int]) -> tuple[float, float, float]:
    """Return strength and sigma of the elastic field and reach of its points in pixels, for an image's size."""
    strength, sigma, reach = (share * 244 * min(size) / 224 for share in level(ELASTIC, severity))
    return strength, sigma, reach


def elastic_points(size: tuple[int, int]) -> NDArray[np.int_]:
    """Return the three points (x, y) that the elastic transform pulls, ``(3, 2)``."""
    height, width = size
    arm = max(1, min(size) // 3)
    return np.array([width // 2, height // 2]) + arm * np.array([[1, 1], [1, -1], [-1, -1]])


def _smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field ``(H, W)``, mirrored at its edges, with a Gaussian cut off at three standard deviations."""
    taps = gaussian_kernel(sigma, truncate=3)
    if len(taps) <= min(field.shape) // 4:
        return cv2.sepFilter2D(field, -1, taps, taps, borderType=cv2.BORDER_REFLECT)
    # a kernel as wide as the field: as a product of matrices it takes a thirtieth of the time
    rows, columns = (mirrored_blur(side, sigma) for side in field.shape)
    return rows @ field @ columns.T


@lru_cache(maxsize=16)
def mirrored_blur(side: int, sigma: float) -> np.ndarray:
    """Return the blur of ``side`` values as a matrix, the taps that leave them folded back inside."""
    taps = gaussian_kernel(sigma, truncate=3)
    radius = len(taps) // 2
    target = np.arange(side)[:, None]
    source = (target + np.arange(-radius, radius + 1)) % (2 * side)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.broadcast_to(target, source.shape), np.minimum(source, 2 * side - 1 - source)), taps)
    return matrix


def pixelate(image: np.ndarray, severity: int) -> np.ndarray:
    """Shrink to 0.6, 0.5, 0.4, 0.3, 0.25 of the size (whole pixels, at least one) and enlarge again, both by area.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    share = level(PIXELATE, severity)
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    small = picture.resize((max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX)
    return np.array(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, severity: int) -> np.ndarray:
    """Save as JPEG of quality 25, 18, 15, 10, 7 with Pillow's other defaults, and read again.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    return _through_jpeg(image, quality=level(JPEG, severity))


def jpeg85(image: np.ndarray) -> np.ndarray:
    """Save as JPEG of quality 85 and read again: how the files of the published ImageNet-C are stored.

    Networks score differently without it, so results on corruptions made on the fly are comparable with published
    ones only after this step.

    Args:
        image: ``(H, W, 3)`` bytes, corrupted.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    return _through_jpeg(image, quality=85, optimize=True)


def _through_jpeg(image: np.ndarray, quality: int, optimize: bool = False) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=optimize)
    return np.array(Image.open(file))


def saturate(image: np.ndarray, severity: int) -> np.ndarray:
    """Multiply the saturation (the S of HSV) by 0.3, 0.1, 2, 5, 20 and add 0, 0, 0, 0.1, 0.2; hue and value stay.

    Greys have no hue; as in the original theirs is taken for red, so that severities 4 and 5 tint them.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    times, plus = level(SATURATE, severity)
    red, green, blue = cv2.split(image)
    largest = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
    smallest = np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)
    saturation = _saturation(times, plus)[(largest.astype(np.uint16) << 8) | smallest]
    spread = largest - smallest
    # how far a channel is from the largest one, as a share of the spread: hue keeps it
    lacking = (largest[..., None] - image) / np.maximum(spread, 1)[..., None]
    lacking[..., 1:][spread == 0] = 1
    return to_bytes(unit(largest)[..., None] * (1 - lacking * saturation[..., None]))


@lru_cache
def _saturation(times: float, plus: float) -> np.ndarray:
    """Return the new saturation for every (largest, smallest) channel, as one table of 65,536."""
    largest, smallest = np.mgrid[:256, :256] / 255.0
    with np.errstate(invalid="ignore", divide="ignore"):
        saturation = np.where(largest > 0, (largest - smallest) / largest, 0)
    return np.clip(saturation * times + plus, 0, 1).ravel()
