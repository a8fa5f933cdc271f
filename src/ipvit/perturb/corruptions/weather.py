"""Weather: snow, frost, fog, brightness and spatter (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ipvit.perturb.corruptions.arrays import from_planes, gaussian, level, motion_line, to_bytes, to_planes, unit, zoom
from ipvit.perturb.corruptions.frost_textures import read_textures, textures

BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)
"""What brightness adds to the value, by severity."""

SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
SNOW_ANGLES = (-135, -45)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
"""What the functions of these names say that they take, by severity; degrees."""

_WATER = np.array([175, 238, 238]) / 255
_MUD = np.array([63, 42, 20]) / 255


def snow(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Whiten the image and add flakes: normal noise, enlarged, cut at a threshold, blurred along its fall.

    Mean and deviation of the noise, enlargement, threshold, radius and sigma of the blur, share of the image:
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55). The flakes fall at an angle from
    [-135, -45] degrees and are added a second time, turned by half a turn.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    mean, deviation, factor, threshold, radius, sigma, share = level(SNOW, severity)
    noise = random.normal(size=(*image.shape[:2], 1), loc=mean, scale=deviation)
    flakes = from_planes(zoom(to_planes(noise), factor))[..., 0]
    flakes = to_bytes(np.where(flakes < threshold, 0, flakes))
    flakes = unit(motion_line(flakes, radius, sigma, random.uniform(*SNOW_ANGLES)))
    values = unit(image).astype(np.float32)
    grey = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)[..., None]
    whitened = share * values + (1 - share) * np.maximum(values, grey * 1.5 + 0.5)
    return to_bytes(whitened + (flakes + flakes[::-1, ::-1])[..., None])


def frost(
    image: np.ndarray, severity: int, random: np.random.RandomState, folder: str | Path | None = None
) -> np.ndarray:
    """Add a part of a picture of ice crystals.

    Weights of image and ice: (1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75). The original's photographs
    come without a licence, so the five pictures are drawn, see :mod:`ipvit.perturb.corruptions.frost_textures`;
    results on ``frost`` then differ from the published set's. An image larger than the picture gets the picture
    enlarged.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.
        folder: where the original's pictures ``frost1.png`` to ``frost5.jpg`` are, to use them instead. (There is a
            sixth, which the original never draws.)

    Returns:
        ``(H, W, 3)`` bytes.

    Raises:
        ValueError: when the folder lacks a picture.
    """
    of_image, of_ice = level(FROST, severity)
    pictures = textures() if folder is None else read_textures(str(folder))
    ice = cover(pictures[random.randint(len(pictures))], image.shape[:2])
    down: int = ice.shape[0] - image.shape[0]
    right: int = ice.shape[1] - image.shape[1]
    top, left = random.randint(0, down), random.randint(0, right)
    ice = ice[top : top + image.shape[0], left : left + image.shape[1]]
    return np.clip(of_image * image + of_ice * ice, 0, 255).astype(np.uint8)


def cover(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a picture, if need be, until it is larger than ``size``."""
    factor = max((wanted + 1) / side for wanted, side in zip(size, picture.shape[:2], strict=True))
    if factor <= 1:
        return picture
    height, width = (int(np.ceil(side * factor)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def fog(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Add clouds, a diamond-square fractal, and darken so that the brightest pixel could stay as bright.

    Strength of the clouds and fall of their detail: (1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4). The fractal's
    side is the power of two that holds the image: the original's 256 at its 224 pixels.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    strength, fall = level(FOG, severity)
    height, width = image.shape[:2]
    values = unit(image)
    brightest = values.max()
    clouds = strength * _fractal(max(height, width), fall, random)[:height, :width, None]
    return to_bytes((values + clouds) * brightest / (brightest + strength))


def _fractal(side: int, fall: float, random: np.random.RandomState) -> np.ndarray:
    """Return a diamond-square height map on a torus, in [0, 1], of at least ``side`` pixels a side.

    Each round puts a point into the middle of every square, then one into the middle of every square's edges: the mean
    of the four points around plus noise, whose amplitude falls from round to round.
    """
    heights, amplitude = np.zeros((1, 1)), 100.0

    def between(four: np.ndarray) -> np.ndarray:
        return four / 4 + amplitude * random.uniform(-amplitude, amplitude, four.shape)

    while len(heights) < max(2, side):
        below = np.roll(heights, -1, axis=0)
        pairs = heights + below
        middle = between(pairs + np.roll(pairs, -1, axis=1))
        finer = np.empty((2 * len(heights), 2 * len(heights)))
        finer[::2, ::2] = heights
        finer[1::2, 1::2] = middle
        finer[::2, 1::2] = between(middle + np.roll(middle, 1, axis=0) + (heights + np.roll(heights, -1, axis=1)))
        finer[1::2, ::2] = between(middle + np.roll(middle, 1, axis=1) + pairs)
        heights, amplitude = finer, amplitude / fall
    heights = heights - heights.min()
    return heights / heights.max()


def brightness(image: np.ndarray, severity: int) -> np.ndarray:
    """Add 0.1, 0.2, 0.3, 0.4, 0.5 to the value (the V of HSV); hue and saturation stay.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    table = brighter(level(BRIGHTER, severity))
    red, green, blue = cv2.split(image)
    value = cv2.max(cv2.max(red, green), blue).astype(np.uint16) << 8
    return table[value[..., None] | image]


@lru_cache
def brighter(plus: float) -> np.ndarray:
    """Return the new byte for every (value, byte), as one table of 65,536.

    With the same hue and saturation a channel keeps its share of the value, so nothing else decides it.
    """
    value, channel = np.mgrid[:256, :256] / 255.0
    with np.errstate(divide="ignore", invalid="ignore"):
        lacking = np.where(value > 0, (value - channel) / value, 0)
    return to_bytes(np.clip(value + plus, 0, 1) * (1 - lacking)).ravel()


def spatter(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Splash drops of water (severity 1 to 3) or mud (4 and 5) on the lens.

    Mean and deviation of the noise, sigma of its blur, threshold, and then strength (water) or second sigma (mud):
    (0.65, 0.3, 4, 0.69, 0.6), (0.65, 0.3, 3, 0.68, 0.6), (0.65, 0.3, 2, 0.68, 0.5), (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5).

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    mean, deviation, sigma, threshold, last = level(
        (
            (0.65, 0.3, 4, 0.69, 0.6),
            (0.65, 0.3, 3, 0.68, 0.6),
            (0.65, 0.3, 2, 0.68, 0.5),
            (0.65, 0.3, 1, 0.65, 1.5),
            (0.67, 0.4, 1, 0.65, 1.5),
        ),
        severity,
    )
    values = unit(image)
    liquid = gaussian(random.normal(size=image.shape[:2], loc=mean, scale=deviation), sigma)
    if severity <= 3:
        return to_bytes(values + _relief(np.where(liquid < threshold, 0, liquid))[..., None] * last * _WATER)
    mud = gaussian((liquid > threshold).astype(np.float64), last)[..., None]
    mud[mud < 0.8] = 0
    return to_bytes(values * (1 - mud) + mud * _MUD)


def _relief(liquid: np.ndarray) -> np.ndarray:
    """Return how much drops of a thickness in [0, 1] shine, in [0, 1]: bright rims, as if lit from one side."""
    liquid = to_bytes(liquid)
    from_rim = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    shine = cv2.equalizeHist(cv2.blur(np.minimum(from_rim, 20), (3, 3)).astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shine = liquid * cv2.blur(cv2.filter2D(shine, cv2.CV_8U, emboss), (3, 3)).astype(np.float32)
    return shine / max(shine.max(), 1.0)  # a lens without a drop has no maximum to divide by
