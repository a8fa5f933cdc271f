"""Noise, value by value: which byte becomes of a byte and 16 random bits is a table that a processor makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipvit.perturb.corruptions.arrays import level, to_bytes
from ipvit.perturb.corruptions.keyed.draws import SIXTEENTHS, Draws
from ipvit.perturb.corruptions.noise import GAUSSIAN_NOISE, IMPULSE, SHOT, SPECKLE
from ipvit.perturb.tensors import from_numpy

_SHARES = (np.arange(SIXTEENTHS) + 0.5) / SIXTEENTHS
"""Where in a distribution each 16-bit number stands."""


def noise(name: str) -> Callable[[Tensor, int, Draws], Tensor]:
    """Return the corruption of one of :data:`TABLES`."""

    def corrupted(images: Tensor, severity: int, draws: Draws) -> Tensor:
        places = draws.sixteens(*images.shape[1:]).bitwise_or_(images.to(torch.int32) << 16)
        return _sent(name, severity, images.device).index_select(0, places.flatten()).view_as(images)

    return corrupted


@lru_cache(maxsize=20)  # 17 MB each: all severities of the four, which a sweep needs again for every batch
def _sent(name: str, severity: int, device: torch.device) -> Tensor:
    return from_numpy(table(name, severity).ravel()).to(device, non_blocking=True)


def table(name: str, severity: int) -> NDArray[np.uint8]:
    """Return the byte for every byte and 16-bit number, ``(256, 65536)`` uint8."""
    made = np.empty((256, SIXTEENTHS), np.uint8)
    of_byte = TABLES[name]
    for byte in range(256):
        made[byte] = of_byte(byte, severity)
    return made


@lru_cache(maxsize=1)
def normals() -> NDArray[np.float64]:
    """Return the normal number of every 16-bit number, ``(65536,)``, at most 4.33 from 0.

    They are multiples of 2^-20, so that the last bits of a machine's logarithms and roots decide nothing.
    """
    inverse = NormalDist().inv_cdf
    half = np.array([inverse(share) for share in _SHARES[SIXTEENTHS // 2 :]])
    half = np.rint(half * 2**20) / 2**20
    return np.concatenate([-half[::-1], half])


def _gaussian(byte: int, severity: int) -> np.ndarray:
    return to_bytes(byte / 255.0 + level(GAUSSIAN_NOISE, severity) * normals())


def _speckle(byte: int, severity: int) -> np.ndarray:
    value = byte / 255.0
    return to_bytes(value + value * (level(SPECKLE, severity) * normals()))


def _shot(byte: int, severity: int) -> np.ndarray:
    photons = level(SHOT, severity)
    return to_bytes(_poisson(byte / 255.0 * photons) / photons)


def _poisson(mean: float) -> NDArray[np.int_]:
    """Return the number of every 16-bit number in a Poisson distribution, ``(65536,)``."""
    counts = np.arange(int(mean + 12 * mean**0.5) + 20)
    terms = np.concatenate([[1.0], mean / counts[1:]])
    below = np.cumsum(np.exp(-mean) * np.cumprod(terms))
    ends = np.searchsorted(_SHARES, below[:-1], side="right")
    return np.repeat(counts, np.diff(ends, prepend=0, append=SIXTEENTHS))


def _impulse(byte: int, severity: int) -> np.ndarray:
    few = round(level(IMPULSE, severity) / 2 * SIXTEENTHS)
    made = np.full(SIXTEENTHS, byte, np.uint8)
    made[:few], made[SIXTEENTHS - few :] = 0, 255
    return made


TABLES: dict[str, Callable[[int, int], np.ndarray]] = {
    "gaussian_noise": _gaussian,
    "shot_noise": _shot,
    "impulse_noise": _impulse,
    "speckle_noise": _speckle,
}
"""From a byte and a severity to the 65,536 bytes that may become of it."""
