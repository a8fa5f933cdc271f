"""One keyed corruption of a batch of images, by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.corruptions.jpeg_tensors import through_jpeg
from ipvit.perturb.corruptions.keyed.displacement import elastic_transform, glass_blur, motion_blur
from ipvit.perturb.corruptions.keyed.draws import Draws
from ipvit.perturb.corruptions.keyed.noise import TABLES, noise
from ipvit.perturb.corruptions.keyed.weather import fog, frost, snow

_AT_ONCE = 64 * 224 * 224
"""Pixels that are corrupted together: sums of whole numbers take up to 8 bytes for a byte of the image."""

_FUNCTIONS: dict[str, Callable[[Tensor, int, Draws], Tensor]] = {
    **{name: noise(name) for name in TABLES},
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "snow": snow,
    "frost": frost(),
    "fog": fog,
    "elastic_transform": elastic_transform,
}


def keyed_tensors(
    images: Tensor,
    name: str,
    severity: int,
    key: np.ndarray,
    *,
    jpeg: bool = False,
    frost_folder: str | Path | None = None,
) -> Tensor:
    """Corrupt a batch of images, each with its own random numbers.

    Args:
        images: ``(B, 3, H, W)`` uint8, RGB, on any device; not changed. Apple's GPUs have no float64, so there the
            processor corrupts.
        name: one of :data:`ipvit.perturb.corruptions.KEYED`.
        severity: 1 to 5.
        key: ``(B,)`` uint64, the images' keys (:func:`ipvit.perturb.keys`). Everything random follows from an image's
            key, the name and the severity.
        jpeg: as they come out of a JPEG file of quality 85.
        frost_folder: a folder with the original's frost pictures, see :func:`ipvit.perturb.corruptions.frost`.

    Returns:
        ``(B, 3, H, W)`` uint8, on the same device: the same bytes on every device, for the same pictures of frost.

    Raises:
        ValueError: for an unknown name, a severity outside 1 to 5, or images or keys of another shape or type.
    """
    _check(images, name, key)
    own = _own_keys(key, name, severity)
    function = frost(None if frost_folder is None else str(frost_folder)) if name == "frost" else _FUNCTIONS[name]
    there = images.cpu() if images.device.type == "mps" else images
    at_once = max(1, _AT_ONCE // (images.shape[2] * images.shape[3]))
    made = torch.empty_like(there)
    for first in range(0, len(there), at_once):
        part = slice(first, first + at_once)
        corrupted = function(there[part], severity, Draws(own[part], there.device))
        made[part] = through_jpeg(corrupted, 85) if jpeg else corrupted
    return made.to(images.device)


def _check(images: Tensor, name: str, key: np.ndarray) -> None:
    if name not in _FUNCTIONS:
        raise ValueError(f"there is no keyed version of {name!r}; known: {', '.join(_FUNCTIONS)}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:] or images.dtype != torch.uint8:
        raise ValueError(f"images must be (B, 3, H, W) of uint8, not {tuple(images.shape)} of {images.dtype}")
    if key.shape != (len(images),) or key.dtype != np.uint64:
        raise ValueError(f"there must be {len(images)} keys of uint64, one an image, not {key.shape} of {key.dtype}")


def _own_keys(key: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Return the keys of one corruption at one severity, so that no two share random numbers."""
    own = [hashlib.blake2b(f"{int(one)}/{name}/{severity}/keyed".encode(), digest_size=8).digest() for one in key]
    return np.frombuffer(b"".join(own), dtype="<u8").astype(np.uint64)
