"""What clean accuracy predicts on each set: lines through the published accuracies of timm's networks."""

from __future__ import annotations

import functools

import numpy as np

from ipvit.data.recognition import IMAGENET
from ipvit.metrics.effective_robustness import AccuracyLine, accuracy_logit
from ipvit.models.published.shifts import SETS, ShiftResult, timm_shift_results

A_SELECTED = "ImageNet-A's images were selected for being wrong with a ResNet-50: its line is not a law of nature."


def line_of(name: str, clean_set: str, clean_images: int, images: int, n_answers: int) -> AccuracyLine | None:
    """Return the line of a set; None where there is none, or not all of its images were measured as published."""
    known = SETS.get(name)
    if known is None or clean_set != IMAGENET:
        return None
    measured = clean_images, images, n_answers
    return line(name) if measured == (known.clean_images, known.images, known.n_answers) else None


@functools.cache
def line(name: str) -> AccuracyLine:
    """Return the line of a set through the networks that saw ImageNet-1k alone, at their smallest input."""
    clean, shifted = logits(name, in1k=True)
    return AccuracyLine.fit(clean, shifted)


def logits(name: str, *, in1k: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of clean and shifted accuracies of timm's networks, one for each; none at 0 or 100 %.

    Args:
        name: of the set.
        in1k: only networks that saw ImageNet-1k alone, or only others; None for all.
    """
    known = SETS[name]
    rows = [one for one in networks() if in1k is None or one.in1k == in1k]
    pairs = np.array([[one.top1[known.clean], one.top1[known.shifted]] for one in rows]) / 100
    pairs = pairs[((pairs > 0) & (pairs < 1)).all(axis=1)]
    right = pairs * (known.clean_images, known.images)
    return accuracy_logit(right[:, 0], known.clean_images), accuracy_logit(right[:, 1], known.images)


@functools.cache
def networks() -> tuple[ShiftResult, ...]:
    """Return timm's results, of each network at its smallest input."""
    found: dict[str, ShiftResult] = {}
    for one in timm_shift_results():
        if one.network not in found or one.img_size < found[one.network].img_size:
            found[one.network] = one
    return tuple(found.values())
