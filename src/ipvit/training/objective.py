"""What a training minimises, apart from the data it sees and the loop that steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn

from ipvit.training.recipe import MixupPart


class Objective(Protocol):
    """One loss. The loop calls it once a step and knows nothing else about it."""

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, key: int) -> Tensor:
        """Return the loss of one batch.

        Args:
            model: takes images in [0, 1].
            images: ``(B, 3, H, W)`` in [0, 1], on the model's device.
            labels: ``(B,)`` int64, likewise.
            key: everything random about this step must follow from it.
        """
        ...


class Supervised:
    """Cross-entropy with the labels, optionally smoothed and mixed.

    Args:
        num_classes: number of outputs.
        label_smoothing: share of the target spread over all classes.
        mixup: Mixup and CutMix, or None.
    """

    def __init__(self, num_classes: int, label_smoothing: float = 0.0, mixup: MixupPart | None = None) -> None:
        self._smoothing = label_smoothing
        self._mixup = mixup and Mixup(
            **mixup.model_dump(), mode="batch", label_smoothing=label_smoothing, num_classes=num_classes
        )

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, key: int) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        if self._mixup is None:
            return F.cross_entropy(model(images), labels, label_smoothing=self._smoothing)
        with _numpy_seed(key):
            images, soft = self._mixup(images.clone(), labels)
        return F.cross_entropy(model(images), soft)


@contextmanager
def _numpy_seed(key: int) -> Iterator[None]:
    """Seed numpy's global generator, the only one timm's Mixup draws from, and put it back afterwards."""
    before = np.random.get_state()
    np.random.seed(key % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
