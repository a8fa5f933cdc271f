"""From logits to the columns of a classification record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ipvit.metrics.accuracy import check_labels, label_rank

if TYPE_CHECKING:
    from ipvit.models.model import Model


def classify(model: Model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Run the model on images in [0, 1] and return the columns of a classification record; see :func:`score_logits`."""
    return score_logits(model(images), labels)


def score_logits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the columns of a classification record. Nothing in it waits for a GPU.

    Args:
        logits: ``(B, C)``, of the answers.
        labels: ``(B,)`` right answers, -1 where there is none; or ``(B, C)`` booleans where several may be right.

    Returns:
        ``prediction`` (the answer with the largest logit; -1 where the logits are not finite), ``confidence`` (its
        softmax probability), ``label_probability`` (of all right answers together; NaN without label), ``correct``
        (the prediction is right) and ``correct5`` (one of the five largest is).
    """
    if labels.device.type == "cpu":  # those on a GPU come from the engine, which has checked them: to look is to wait
        check_labels(labels, logits.shape[1])
    finite = torch.isfinite(logits).all(dim=1)
    probability = logits.softmax(dim=1)
    if labels.ndim == 1:
        known = labels >= 0
        of_label = probability.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    else:
        known = labels.any(dim=1)
        of_label = (probability * labels).sum(dim=1)
    confidence = probability.amax(dim=1)
    nan = torch.full_like(confidence, float("nan"))
    rank = torch.where(finite, label_rank(logits, labels), logits.shape[1])
    return {
        "prediction": torch.where(finite, logits.argmax(dim=1), -1).to(torch.int32),
        "confidence": torch.where(finite, confidence, nan),
        "label_probability": torch.where(finite & known, of_label, nan),
        "correct": rank < 1,
        "correct5": rank < min(5, logits.shape[1]),
    }
