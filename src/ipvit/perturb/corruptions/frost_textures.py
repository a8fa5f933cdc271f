"""Pictures of ice crystals on glass for the corruption ``frost``: drawn from fixed seeds, or the original's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ipvit.perturb.corruptions.arrays import gaussian_kernel

SIDE = 720
NAMES = ("frost1", "frost2", "frost3", "frost4", "frost5")


@dataclass(frozen=True)
class _Style:
    seed: int
    feathers: int  # how many stems
    length: float  # of a stem, in pixels
    spread: float  # angle of the barbs from their stem, in degrees
    haze: float  # how much soft, milky ice counts against crystals
    mean: float  # grey level; means and deviations are about those of the original's photographs
    deviation: float
    tint: tuple[float, float, float]  # added to the grey


_STYLES = (
    _Style(11, 90, 190, 55, 0.5, 130, 42, (-14, 0, 16)),
    _Style(23, 50, 300, 38, 1.0, 200, 26, (-6, 0, 8)),
    _Style(37, 360, 75, 60, 0.8, 165, 34, (-5, 1, 5)),
    _Style(41, 150, 140, 32, 1.2, 150, 32, (-12, 1, 12)),
    _Style(53, 70, 240, 64, 0.6, 122, 44, (-11, 0, 12)),
)
_LAYERS = 8  # feathers are drawn in layers of rising brightness, so that those on top stand out


@lru_cache(maxsize=1)
def textures() -> tuple[np.ndarray, ...]:
    """Return five drawn pictures ``(720, 720, 3)`` of bytes: feathers of ice over milky glass. Drawn once a process."""
    return tuple(_draw(style) for style in _STYLES)


@lru_cache(maxsize=2)
def read_textures(folder: str) -> tuple[np.ndarray, ...]:
    """Read the original's pictures, ``frost1`` to ``frost5`` as PNG or JPEG files, from a folder.

    Raises:
        ValueError: when one is missing.
    """
    pictures: list[np.ndarray] = []
    for name in NAMES:
        paths = [path for end in (".png", ".jpg", ".jpeg") if (path := Path(folder, name + end)).is_file()]
        if not paths:
            raise ValueError(f"no {name}.png or {name}.jpg in the frost folder {folder}; it must hold frost1 to frost5")
        with Image.open(paths[0]) as picture:
            pictures.append(np.array(picture.convert("RGB")))
    return tuple(pictures)


def _draw(style: _Style) -> np.ndarray:
    random = np.random.RandomState(style.seed)
    crystals = np.zeros((SIDE, SIDE), np.uint8)
    for layer in range(_LAYERS):
        # barbules, barbs and stems, the finest first; coordinates in sixteenths of a pixel
        for lines, share in zip(_feathers(style, random), (0.55, 0.8, 1.0), strict=True):
            grey = share * (100 + 155 * layer / (_LAYERS - 1))
            cv2.polylines(crystals, list((lines * 16).astype(np.int32)), False, grey, 1, cv2.LINE_AA, shift=4)
    sharp = crystals / 255.0
    grain = random.normal(0, 0.06, (SIDE, SIDE))
    ice = sharp + 0.5 * _blurred(sharp, 4) + style.haze * _clouds(random) + grain
    grey = style.mean + style.deviation * (ice - ice.mean()) / ice.std()
    return np.clip(grey[..., None] + np.array(style.tint), 0, 255).astype(np.uint8)


def _feathers(style: _Style, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one layer's barbules, barbs and stems as lines ``(n, 2, 2)`` of (x, y) in pixels."""
    n = style.feathers // _LAYERS
    length = style.length * random.uniform(0.4, 1.2, n)
    stems = _rays(random.uniform(0, SIDE, (n, 2)), random.uniform(0, 2 * math.pi, n), length)
    barbs = _branches(stems, round(style.length / 8), 0.42, style.spread, random)
    return _branches(barbs, 4, 0.3, style.spread, random), barbs, stems


def _branches(lines: np.ndarray, pairs: int, share: float, spread: float, random: np.random.RandomState) -> np.ndarray:
    """Return branches on both sides of lines, so many pairs a line, shorter towards the line's tip."""
    along = (np.arange(pairs) + random.uniform(0, 1, (len(lines), pairs))) / pairs
    way = lines[:, 1] - lines[:, 0]
    starts = lines[:, None, 0] + along[..., None] * way[:, None]
    length = share * np.hypot(*way.T)[:, None] * (1 - along) * random.uniform(0.5, 1.2, along.shape)
    angle = np.arctan2(way[:, 1], way[:, 0])[:, None] + random.normal(0, 0.06, along.shape)
    sides = [
        _rays(starts.reshape(-1, 2), (angle + turn).ravel(), length.ravel())
        for turn in (math.radians(spread), -math.radians(spread))
    ]
    return np.concatenate(sides)


def _rays(start: np.ndarray, angle: np.ndarray, length: np.ndarray) -> np.ndarray:
    way = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * length[:, None]
    return np.stack([start, start + way], axis=1)


def _clouds(random: np.random.RandomState) -> np.ndarray:
    """Return smooth noise of four scales in [0, 1], ``(SIDE, SIDE)``."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(4):
        cells = 5 * 2**octave
        total += (
            cv2.resize(random.uniform(0, 1, (cells, cells)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 2**octave
        )
    total -= total.min()
    return total / total.max()


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    taps = gaussian_kernel(sigma)
    return cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT)
