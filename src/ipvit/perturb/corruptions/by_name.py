"""One corruption of one image, by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ipvit.perturb.corruptions.arrays import random_state
from ipvit.perturb.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from ipvit.perturb.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from ipvit.perturb.corruptions.names import CORRUPTIONS, EXTRA
from ipvit.perturb.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from ipvit.perturb.corruptions.weather import brightness, fog, frost, snow, spatter

_RANDOM: dict[str, Callable[[np.ndarray, int, np.random.RandomState], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "elastic_transform": elastic_transform,
    "speckle_noise": speckle_noise,
    "spatter": spatter,
}
_FIXED: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "defocus_blur": defocus_blur,
    "zoom_blur": zoom_blur,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "gaussian_blur": gaussian_blur,
    "saturate": saturate,
}


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    key: int | np.uint64,
    *,
    frost_folder: str | Path | None = None,
) -> np.ndarray:
    """Corrupt one image.

    Args:
        image: ``(H, W, 3)`` bytes, RGB, any size; not changed.
        name: one of :data:`CORRUPTIONS` or :data:`EXTRA`.
        severity: 1 to 5.
        key: the image's key (:func:`ipvit.perturb.keys`). Everything random follows from it, the name and the severity.
        frost_folder: a folder with the original's frost pictures, see :func:`frost`; drawn ones by default.

    Returns:
        ``(H, W, 3)`` bytes; a new array.

    Raises:
        ValueError: for an unknown name, a severity outside 1 to 5, or an image of another shape or type.

    >>> grey = np.full((8, 8, 3), 100, np.uint8)
    >>> int(corrupt(grey, "brightness", 3, key=0)[0, 0, 0])
    176
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"an image must be (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
    image = np.ascontiguousarray(image)
    if name in _FIXED:
        return _FIXED[name](image, severity)
    if name not in _RANDOM:
        raise ValueError(_unknown(name))
    random = random_state(key, name, severity)
    return frost(image, severity, random, frost_folder) if name == "frost" else _RANDOM[name](image, severity, random)


def _unknown(name: str) -> str:
    known = CORRUPTIONS + EXTRA
    plain = name.lower().replace("-", "_").replace(" ", "_")
    near = difflib.get_close_matches(plain, known, n=1) or [other for other in known if plain and plain in other]
    meant = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown corruption {name!r}{meant} known: {', '.join(known)}"
