"""Random erasing (Zhong et al. 2020), done by timm, on the device the network is on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from ipvit.core.preprocessing import Preprocessing
from ipvit.training.policies import global_seeds

if TYPE_CHECKING:
    from ipvit.training.config import AugmentConfig

_WORD = np.uint64(0xE5A5E)
"""Keeps the rectangle apart from the other changes, which follow from the same key."""


class Erasing:
    """Rectangles of 2 to 33 % of the area, replaced by noise of the normalised image's scale, as timm and DeiT do.

    The noise is normal and is not cut off at black and white, which a picture of bytes could not hold: that is why this
    comes last and on the device.

    Args:
        part: probability, kind and most rectangles.
        preprocessing: mean and spread that the network takes away, and the noise has.
    """

    def __init__(self, part: AugmentConfig, preprocessing: Preprocessing) -> None:
        self._part, self._preprocessing = part, preprocessing

    def __call__(self, images: Tensor, keys: np.ndarray) -> Tensor:
        """Return the images with their rectangles erased.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            keys: ``(B,)`` one for each image's sighting, from which place and noise follow.
        """
        part = self._part
        if not part.erase:
            return images
        words = [int(key ^ _WORD) for key in keys]
        # timm's first draw says whether; asking for it alone spares the others the noise
        rows = [row for row, word in enumerate(words) if random.Random(word).random() <= part.erase]
        if not rows:
            return images
        erase = RandomErasing(part.erase, mode=part.erase_mode, max_count=part.erase_count, device="cpu")
        noise = torch.full((len(rows), *images.shape[1:]), torch.nan)
        for one, row in zip(noise, rows, strict=True):
            with global_seeds(words[row]):
                erase(one)
        noise, chosen = noise.to(images.device), torch.tensor(rows, device=images.device)
        mean, std = (noise.new_tensor(v).view(3, 1, 1) for v in (self._preprocessing.mean, self._preprocessing.std))
        changed = torch.where(noise.isnan(), images[chosen], noise * std + mean)
        return images.index_copy(0, chosen, changed)
