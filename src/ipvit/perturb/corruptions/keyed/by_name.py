"""One keyed corruption of a batch of images, by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.corruptions.jpeg_tensors import through_jpeg
from ipvit.perturb.corruptions.keyed.displacement import elastic_transform, glass_blur, motion_blur
from ipvit.perturb.corruptions.keyed.draws import Draws
from ipvit.perturb.corruptions.keyed.noise import TABLES, noise
from ipvit.perturb.corruptions.keyed.weather import fog, frost, snow

KEYED_VERSION = 1
"""Raised whenever a keyed corruption gives another byte; results of an earlier one then no longer count."""

_AT_ONCE = 64
"""Images that are corrupted together: sums of whole numbers take up to 8 bytes for a byte of the image."""

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
    images: Tensor, name: str, severity: int, key: np.ndarray, *, jpeg: bool = False, frost_folder: str | None = None
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
        ``(B, 3, H, W)`` uint8, on the same device: the same bytes on every device.
    """
    own = _own_keys(key, name, severity)
    function = frost(frost_folder) if name == "frost" else _FUNCTIONS[name]
    there = images.cpu() if images.device.type == "mps" else images
    made: list[Tensor] = []
    for first in range(0, len(there), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        corrupted = function(there[part], severity, Draws(own[part], there.device))
        made.append(through_jpeg(corrupted, 85) if jpeg else corrupted)
    return torch.cat(made).to(images.device)


def _own_keys(key: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Return the keys of one corruption at one severity, so that no two share random numbers."""
    own = [hashlib.blake2b(f"{int(one)}/{name}/{severity}/keyed".encode(), digest_size=8).digest() for one in key]
    return np.frombuffer(b"".join(own), dtype="<u8").astype(np.uint64)
