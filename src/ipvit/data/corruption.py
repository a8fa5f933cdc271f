"""Corruptions, ImageNet-C's or the user's own, as what a worker process makes of a picture; frost pictures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.core.plugins import OwnFunction, own_function, users_code
from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.perturb.corruptions import corrupt, jpeg85, random_state
from ipvit.perturb.corruptions.frost_textures import read_textures

DRAWN = "drawn"
"""Name of the frost pictures that are drawn, where no folder of others is given."""


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One corruption at one severity, an :class:`ipvit.data.loader.ImageTransform`.

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
        key = corruption_keys([image_id], seed)[0]
        return corrupt(image, self.name, self.severity, key, frost_folder=self.frost)


@dataclasses.dataclass(frozen=True)
class OwnCorruption:
    """A corruption of the user's own at one severity, an :class:`ipvit.data.loader.ImageTransform`.

    Attributes:
        function: from an image ``(H, W, 3)`` of bytes, a severity and a ``RandomState`` to an image of that size.
        severity: 1 to 5.
        jpeg: save as JPEG of quality 85 and read again.
    """

    function: OwnFunction
    severity: int
    jpeg: bool = False

    def __call__(self, pixels: Tensor, image_id: str, seed: int) -> Tensor:
        """Return the corrupted picture, ``(3, H, W)`` uint8."""
        image = pixels.permute(1, 2, 0).contiguous().numpy()
        random = random_state(corruption_keys([image_id], seed)[0], self.function.label, self.severity)
        location = self.function.location
        with users_code(location):
            made = self.function.load()(image.copy(), self.severity, random)
        if not isinstance(made, np.ndarray) or made.shape != image.shape or made.dtype != np.uint8:
            given = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
            raise InputError(f"{location} must return uint8 {image.shape}, not {given}")
        return torch.from_numpy(np.ascontiguousarray((jpeg85(made) if self.jpeg else made).transpose(2, 0, 1)))

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.function.name

    @classmethod
    def at(cls, name: str, severity: int, jpeg: bool = False) -> OwnCorruption:
        """Return what ``path/to/file.py:function``, or a registered function, is now.

        Raises:
            InputError: there is no such file or function.
        """
        return cls(own_function("corruption", name), severity, jpeg)


def corruption_keys(ids: Sequence[str], seed: int) -> np.ndarray:
    """Return the key of each image from which all that is random about its corruptions follows, ``(B,)`` uint64."""
    return seeding.keys(ids, "corruptions", seed)


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
