"""Noise: Gaussian, shot, impulse and speckle (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

import numpy as np

from ipvit.perturb.corruptions.arrays import level, to_bytes, unit

GAUSSIAN_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT = (60, 25, 12, 5, 3)
IMPULSE = (0.03, 0.06, 0.09, 0.17, 0.27)
SPECKLE = (0.15, 0.2, 0.35, 0.45, 0.6)
"""Standard deviation, photons at full brightness, share of values, and deviation by value, by severity."""


def gaussian_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Add normal noise of standard deviation 0.08, 0.12, 0.18, 0.26, 0.38 (of 1), as in poor light.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    sigma = level(GAUSSIAN_NOISE, severity)
    return to_bytes(unit(image) + random.normal(size=image.shape, scale=sigma))


def shot_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Count photons: Poisson with mean ``n`` times the value, over ``n`` = 60, 25, 12, 5, 3.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    photons = level(SHOT, severity)
    return to_bytes(random.poisson(unit(image) * photons) / photons)


def impulse_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Set a share 0.03, 0.06, 0.09, 0.17, 0.27 of the values to 0 or 255, as many of either: salt and pepper.

    Values are hit channel by channel, so that the specks are coloured.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    share = level(IMPULSE, severity)
    hit = random.random_sample(image.shape) < share
    salt = random.random_sample(image.shape) < 0.5
    return np.where(hit, np.where(salt, np.uint8(255), np.uint8(0)), image)


def speckle_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    """Add normal noise in proportion to the value: standard deviation 0.15, 0.2, 0.35, 0.45, 0.6 times it.

    Args:
        image: ``(H, W, 3)`` bytes.
        severity: 1 to 5.
        random: the stream to draw from.

    Returns:
        ``(H, W, 3)`` bytes.
    """
    sigma = level(SPECKLE, severity)
    values = unit(image)
    return to_bytes(values + values * random.normal(size=image.shape, scale=sigma))
