"""The corruptions of ImageNet-C, made on the fly (Hendrycks & Dietterich 2019; section 3.4 of the paper).

Each is a function of one image, ``(H, W, 3)`` bytes in RGB of any size, and a severity from 1 to 5; those that draw
random numbers take the stream to draw them from. :func:`corrupt` picks one by name and makes its stream from the
image's key, so that an image's corruption depends on nothing else.

At 224 pixels, the published size, every parameter is the original's. At other sizes lengths in pixels stay (blurs,
displacements, drops), shares of the image follow it (zoom, pixelate), and so do the elastic transform and the side of
the fog's fractal. The published set is stored as JPEG files of quality 85; without :func:`jpeg85` results are those
of another benchmark.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ipvit.perturb.corruptions.arrays import random_state
from ipvit.perturb.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from ipvit.perturb.corruptions.digital import (
    contrast,
    elastic_transform,
    jpeg85,
    jpeg_compression,
    pixelate,
    saturate,
)
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

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The fifteen that the mean corruption error counts, in the order of their paper."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four held back for tuning, which the mean corruption error does not count."""

FAMILIES = {
    "noise": CORRUPTIONS[:3],
    "blur": CORRUPTIONS[3:7],
    "weather": CORRUPTIONS[7:11],
    "digital": CORRUPTIONS[11:],
    "extra": EXTRA,
}
"""The fifteen in their four groups, and the four."""

SEVERITIES = (1, 2, 3, 4, 5)


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


__all__ = [
    "CORRUPTIONS",
    "EXTRA",
    "FAMILIES",
    "SEVERITIES",
    "brightness",
    "contrast",
    "corrupt",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg85",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "random_state",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
]
