"""A corruption of ImageNet-C as what a worker process makes of a picture, and frost pictures by their content."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.perturb.corruptions import corrupt, jpeg85
from ipvit.perturb.corruptions.frost_textures import read_textures

DRAWN = "drawn"
"""Name of the frost pictures that are drawn, where no folder of others is given."""


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One corruption at one severity, an :class:`ipvit.data.loader.Alteration`.

    What is random follows from the image's id and the seed: wherever the same picture is corrupted, by an experiment
    or by ``ipvit corrupt``, the same comes out.

    Attributes:
        name: of the corruption.
        severity: 1 to 5.
        jpeg: save as JPEG of quality 85 and read again, as the published files are stored.
        frost: folder of the original's frost pictures; drawn ones where it is None.
    """

    name: str
    severity: int
    jpeg: bool = False
    frost: str | None = None

    def __call__(self, pixels: Tensor, image_id: str, seed: int) -> Tensor:
        """Return the corrupted picture, ``(3, H, W)`` uint8."""
        image = pixels.permute(1, 2, 0).contiguous().numpy()
        made = self.of(image, image_id, seed)
        return torch.from_numpy(np.ascontiguousarray((jpeg85(made) if self.jpeg else made).transpose(2, 0, 1)))

    def of(self, image: np.ndarray, image_id: str, seed: int) -> np.ndarray:
        """Return the corrupted picture before it is stored, ``(H, W, 3)`` uint8."""
        key = seeding.keys([image_id], "corruptions", seed)[0]
        return corrupt(image, self.name, self.severity, key, frost_folder=self.frost)


def frost_pictures(folder: str | Path | None) -> str:
    """Return what tells frost pictures apart: :data:`DRAWN`, or eight hex digits of a folder's pictures.

    Raises:
        InputError: the folder lacks a picture.
    """
    if folder is None:
        return DRAWN
    try:
        pictures = read_textures(str(folder))
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from None
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(repr(picture.shape).encode() + picture.tobytes())
    return digest.hexdigest()[:8]
