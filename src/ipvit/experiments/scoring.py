"""From logits to the columns of a classification record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipvit.experiments.base import Batch, Condition, Records
from ipvit.metrics.accuracy import check_labels, label_rank
from ipvit.metrics.temperature import LARGEST, OF_LABEL, TEMPERATURES, sum_column

if TYPE_CHECKING:
    from ipvit.models.model import Model


SCORED_ON_A_PROCESSOR, SCORED_ON_A_GPU = 2**18, 2**22
"""Logits that are scored at a time: 1 MB, and 16 MB, of which some eight copies are made."""


def classify(model: Model, images: Tensor, labels: Tensor, *, clean: bool = False) -> dict[str, Tensor]:
    """Run the model on images in [0, 1] and return the columns of a classification record; see :func:`score_logits`."""
    return score_logits(model(images), labels, clean=clean)


@dataclasses.dataclass(frozen=True)
class Changed:
    """A batch under one condition, to be classified.

    Attributes:
        condition: which.
        images: ``(B, 3, H, W)`` in [0, 1], as the condition has them.
        clean: they are as they were.
        further: columns of the records beside those of the answers.
    """

    condition: Condition
    images: Tensor
    clean: bool = False
    further: Mapping[str, Tensor | np.ndarray] = dataclasses.field(default_factory=dict[str, "Tensor | np.ndarray"])


@dataclasses.dataclass(frozen=True)
class Answered:
    """What a network said to a batch under one condition, to be scored.

    Attributes:
        condition: which.
        logits: ``(B, C)``, of the answers.
        clean: the images were as they are.
        further: columns of the records beside those of the answers.
    """

    condition: Condition
    logits: Tensor
    clean: bool = False
    further: Mapping[str, Tensor | np.ndarray] = dataclasses.field(default_factory=dict[str, "Tensor | np.ndarray"])


def classify_each(model: Model, batch: Batch, changed: Iterable[Changed]) -> Iterator[Records]:
    """Classify a batch under one condition after the other; where it has room for more images, several in one pass."""
    return score_each(batch.labels, _answers(model, batch, changed))


def _answers(model: Model, batch: Batch, changed: Iterable[Changed]) -> Iterator[Answered]:
    most = max(1, batch.room // max(1, len(batch)))
    waiting: list[Changed] = []
    for one in changed:
        waiting.append(one)
        del one  # its images need not outlive their pass
        if len(waiting) == most:
            yield from _answered(model, batch, waiting)
            waiting.clear()
    if waiting:
        yield from _answered(model, batch, waiting)


def _answered(model: Model, batch: Batch, together: Sequence[Changed]) -> list[Answered]:
    images = [one.images for one in together]
    logits = model(images[0] if len(images) == 1 else torch.cat(images))
    rows = [logits[number * len(batch) : (number + 1) * len(batch)] for number in range(len(together))]
    return [Answered(one.condition, own, one.clean, one.further) for one, own in zip(together, rows, strict=True)]


def score_each(labels: Tensor, answered: Iterable[Answered]) -> Iterator[Records]:
    """Score the answers under one condition after the other, of several conditions at once: one row needs no other.

    A GPU is then queued as many operators for many conditions as for one. A processor takes together what fits into
    its cache.

    Args:
        labels: as :func:`score_logits` takes them.
        answered: the conditions' answers, in their order.
    """
    waiting: list[Answered] = []
    for one in answered:
        waiting.append(one)
        most = SCORED_ON_A_PROCESSOR if one.logits.device.type == "cpu" else SCORED_ON_A_GPU
        if (len(waiting) + 1) * one.logits.numel() > most:
            yield from _scored(labels, waiting)
            waiting.clear()
    if waiting:
        yield from _scored(labels, waiting)


def _scored(labels: Tensor, answered: Sequence[Answered]) -> Iterator[Records]:
    if len(answered) == 1:
        (one,) = answered
        yield Records(one.condition, {**score_logits(one.logits, labels, clean=one.clean), **one.further})
        return
    columns = score_logits(torch.cat([one.logits for one in answered]), torch.cat([labels] * len(answered)))
    for number, one in enumerate(answered):
        rows = slice(number * len(labels), (number + 1) * len(labels))
        own = {name: column[rows] for name, column in columns.items()}
        clean = scaled_columns(one.logits, labels) if one.clean else {}
        yield Records(one.condition, {**own, **clean, **one.further})


def score_logits(logits: Tensor, labels: Tensor, *, clean: bool = False) -> dict[str, Tensor]:
    """Return the columns of a classification record. Nothing in it waits for a GPU.

    Args:
        logits: ``(B, C)``, of the answers.
        labels: ``(B,)`` right answers, -1 where there is none; or ``(B, C)`` booleans where several may be right.
        clean: the images are as they are; the columns then also say what a temperature would make of the confidences.

    Returns:
        ``prediction`` (the answer with the largest logit; -1 where the logits are not finite), ``confidence`` (its
        softmax probability), ``label_probability`` (of all right answers together; NaN without label), ``correct``
        (the prediction is right), ``correct5`` (one of the five largest is), ``label_log_probability`` (the logarithm,
        which is finite where the probability is too small for float32) and ``probability_squares`` (the sum of all
        squared probabilities, that of the right answers being one). Of clean images also what
        :func:`scaled_columns` returns.
    """
    if labels.device.type == "cpu":  # those on a GPU come from the engine, which has checked them: to look is to wait
        check_labels(labels, logits.shape[1])
    finite = torch.isfinite(logits).all(dim=1)
    probability = logits.softmax(dim=1)
    logarithm = logits.log_softmax(dim=1)
    if labels.ndim == 1:
        known = labels >= 0
        place = labels.clamp(min=0).unsqueeze(1)
        of_label = probability.gather(1, place).squeeze(1)
        log_of_label = logarithm.gather(1, place).squeeze(1)
        squares = probability.square().sum(dim=1)
    else:
        known = labels.any(dim=1)
        of_label = (probability * labels).sum(dim=1)
        log_of_label = logarithm.where(labels, -torch.inf).logsumexp(dim=1)
        squares = probability.where(~labels, 0).square().sum(dim=1) + of_label.square()
    confidence = probability.amax(dim=1)
    nan = torch.full_like(confidence, float("nan"))
    rank = torch.where(finite, label_rank(logits, labels), logits.shape[1])
    columns = {
        "prediction": torch.where(finite, logits.argmax(dim=1), -1).to(torch.int32),
        "confidence": torch.where(finite, confidence, nan),
        "label_probability": torch.where(finite & known, of_label, nan),
        "correct": rank < 1,
        "correct5": rank < min(5, logits.shape[1]),
        "label_log_probability": torch.where(finite & known, log_of_label, nan),
        "probability_squares": torch.where(finite, squares, nan),
    }
    return columns | (scaled_columns(logits, labels) if clean else {})


def scaled_columns(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return what a temperature is fitted to without the logits: see :mod:`ipvit.metrics.temperature`.

    Args:
        logits: ``(B, C)``, of the answers.
        labels: as in :func:`score_logits`.

    Returns:
        The largest logit, that of the right answer, and for each of the fixed temperatures T the logarithm of the sum
        of exp(logit / T); NaN where logits are not finite, and without one right answer.
    """
    found = {LARGEST: logits.amax(dim=1)}
    one = labels >= 0 if labels.ndim == 1 else labels.sum(dim=1) == 1
    place = labels.clamp(min=0) if labels.ndim == 1 else labels.int().argmax(dim=1)
    found[OF_LABEL] = logits.gather(1, place.long().unsqueeze(1)).squeeze(1)
    found |= {sum_column(t): (logits / t).logsumexp(dim=1) for t in TEMPERATURES}
    sound = torch.isfinite(logits).all(dim=1) & one
    return {name: torch.where(sound, values, torch.nan) for name, values in found.items()}
