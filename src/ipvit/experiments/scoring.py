"""From logits to the columns of a classification record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ipvit.metrics.accuracy import topk_correct

if TYPE_CHECKING:
    from ipvit.models.model import Model


def classify(model: Model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Run the model on images in [0, 1] and return the columns of a classification record; see :func:`score_logits`."""
    return score_logits(model(images), labels)


def score_logits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the columns of a classification record from logits ``(B, C)`` and labels ``(B,)``.

    Returns:
        ``prediction`` (the class of the largest logit; -1 where the logits are not finite), ``confidence`` (its
        softmax probability), ``label_probability`` (the label's; NaN without label), ``correct`` and ``correct5``.
    """
    finite = torch.isfinite(logits).all(dim=1)
    probability = logits.softmax(dim=1)
    of_label = probability.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    confidence = probability.amax(dim=1)
    nan = torch.full_like(confidence, float("nan"))
    return {
        "prediction": torch.where(finite, logits.argmax(dim=1), -1).to(torch.int32),
        "confidence": torch.where(finite, confidence, nan),
        "label_probability": torch.where(finite & (labels >= 0), of_label, nan),
        "correct": topk_correct(logits, labels, 1) & finite,
        "correct5": topk_correct(logits, labels, 5) & finite,
    }
