"""Does a confidence say how often an answer is right? Calibration errors, proper scores, ranking by confidence."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipvit.metrics.numbering import distinct

Floats = NDArray[np.float64]
Scheme = Literal["width", "mass"]
"""Bins of equal width (Naeini et al. 2015), or with equally many answers each (Nixon et al. 2019)."""

BINS = 15
"""Bins of a calibration error (Guo et al. 2017)."""


@dataclasses.dataclass(frozen=True)
class ReliabilityBins:
    """Answers in bins of confidence; empty bins are left out.

    Attributes:
        counts: ``(K,)`` answers of each bin.
        confidence: ``(K,)`` their mean confidence, in [0, 1].
        accuracy: ``(K,)`` the share of them that is right.
        place: ``(N,)`` the bin of each answer.
    """

    counts: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    place: NDArray[np.int64]

    @property
    def shares(self) -> Floats:
        """The share of all answers that each bin holds."""
        return self.counts / max(int(self.counts.sum()), 1)

    @property
    def gaps(self) -> Floats:
        """By how much each bin is more confident than right."""
        return self.confidence - self.accuracy


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, scheme: Scheme = "mass"
) -> ReliabilityBins:
    """Return answers in bins of confidence.

    Args:
        confidence: ``(N,)`` in [0, 1].
        correct: ``(N,)`` whether each answer is right.
        bins: at most so many; equal confidences are never parted, so bins of equal mass may be fewer.
        scheme: ``width``: [0, 1/K), ..., [(K-1)/K, 1]. ``mass``: as many answers in each as in any other.

    Raises:
        ValueError: the arrays differ in length, or a confidence is not in [0, 1].
    """
    sure, right = _pair(confidence, correct)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    if scheme == "width":
        place = np.minimum((np.searchsorted(np.linspace(0, 1, bins + 1), sure, side="right") - 1), bins - 1)
    else:
        starts = np.arange(1, bins) * len(sure) // bins
        edges = np.sort(sure)[starts] if len(sure) else np.empty(0)
        place = np.searchsorted(np.unique(edges), sure, side="right")
    place = distinct(place)[1]
    counts = np.bincount(place).astype(np.int64)
    means = [np.bincount(place, weights=values) / counts for values in (sure, right)]
    return ReliabilityBins(counts, means[0], means[1], place.astype(np.int64))


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, scheme: Scheme = "width") -> float:
    """Return the expected calibration error as it is published: the mean gap of the bins (Guo et al. 2017).

    It is biased upwards: bins vary by chance, and chance makes no gap smaller than 0. See :func:`ece_debiased`.

    Args:
        confidence: ``(N,)`` in [0, 1].
        correct: ``(N,)`` whether each answer is right.
        bins: number of bins.
        scheme: of equal width, or of equal mass.

    Returns:
        In [0, 1]; NaN without an answer.

    Example:
        >>> round(ece([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]), 3)
        0.1
    """
    found = reliability_bins(confidence, correct, bins, scheme)
    return float(found.shares @ np.abs(found.gaps)) if len(found.counts) else math.nan


def ece_debiased(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, scheme: Scheme = "mass") -> float:
    """Return the expected calibration error less its bias (Kumar et al. 2019, "Verified uncertainty calibration").

    The bias is what a bin's accuracy would add to the gap if it varied normally, with variance accuracy (1 - accuracy)
    / n, around what was measured: the estimator of the authors' library for the first power. They resample; here the
    mean of the normal's absolute value is written out.

    Args:
        confidence: ``(N,)`` in [0, 1].
        correct: ``(N,)`` whether each answer is right.
        bins: number of bins.
        scheme: of equal width, or of equal mass.

    Returns:
        In [0, 1]: less than nothing counts as 0. NaN without an answer.

    Example:
        >>> right = [1] * 80 + [0] * 20
        >>> round(ece_debiased([0.9] * 100, right), 3), round(ece([0.9] * 100, right), 3)
        (0.1, 0.1)
    """
    found = reliability_bins(confidence, correct, bins, scheme)
    if not len(found.counts):
        return math.nan
    spread = np.sqrt(found.accuracy * (1 - found.accuracy) / found.counts)
    return less_bias(found.shares, found.gaps, spread)


def less_bias(shares: Floats, gaps: Floats, spread: Floats) -> float:
    """Return a mean of absolute gaps less what chance adds to it, 0 at least.

    Args:
        shares: ``(K,)`` weights of the bins.
        gaps: ``(K,)`` as measured.
        spread: ``(K,)`` their standard deviations.
    """
    biased = shares @ np.abs(gaps)
    return max(0.0, float(2 * biased - shares @ folded_mean(gaps, spread)))


def folded_mean(mean: Floats, spread: Floats) -> Floats:
    """Return the mean of the absolute value of normal numbers, for arrays that broadcast (Leone et al. 1961)."""
    from scipy.special import erf  # pyright: ignore[reportMissingTypeStubs] - here, since it takes a while

    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(spread > 0, mean / (spread * math.sqrt(2)), np.sign(mean) * np.inf)
        scaled = np.where((spread > 0) | (mean != 0), scaled, 0.0)
    return spread * math.sqrt(2 / math.pi) * np.exp(-(scaled**2)) + np.abs(mean) * erf(np.abs(scaled))


def nll(label_log_probability: ArrayLike) -> float:
    """Return the mean negative log-likelihood of the labels in nats, 0 or more.

    Args:
        label_log_probability: ``(N,)`` logarithms of the probabilities of the right answers, 0 at most.
    """
    values = np.asarray(label_log_probability, dtype=np.float64)
    return float(-values.mean()) if len(values) else math.nan


def brier_scores(probability_squares: ArrayLike, label_probability: ArrayLike) -> Floats:
    """Return Brier's score of each answer: the squared distance of its probabilities from the label's, in [0, 2].

    With one probability for each of the K answers, sum of (p - y)^2 = sum of p^2 - 2 p_label + 1 (Brier 1950).

    Args:
        probability_squares: ``(N,)`` sums of the squared probabilities of all answers.
        label_probability: ``(N,)`` probability of the right one.
    """
    squares = np.asarray(probability_squares, dtype=np.float64)
    return squares - 2 * np.asarray(label_probability, dtype=np.float64) + 1


def brier(probability_squares: ArrayLike, label_probability: ArrayLike) -> float:
    """Return the mean of :func:`brier_scores`, in [0, 2]; NaN without an answer."""
    scores = brier_scores(probability_squares, label_probability)
    return float(scores.mean()) if len(scores) else math.nan


def overconfidence(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean confidence less the accuracy, in [-1, 1]; below 0 the answers are better than they claim."""
    sure, right = _pair(confidence, correct)
    return float((sure - right).mean()) if len(sure) else math.nan


def confidence_auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return how well the confidence tells right answers from wrong ones: the area under the ROC curve, in [0, 1].

    It is the probability that a right answer is more confident than a wrong one, ties counting half; 0.5 for a
    confidence that says nothing.

    Args:
        confidence: ``(N,)``.
        correct: ``(N,)`` whether each answer is right.

    Returns:
        NaN where all answers are right, or all wrong.

    Example:
        >>> confidence_auroc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
        0.75
    """
    sure, right = _pair(confidence, correct)
    positive = int(right.sum())
    negative = len(right) - positive
    if not positive or not negative:
        return math.nan
    ranks = mid_ranks(sure)[right > 0].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def mid_ranks(values: Floats) -> Floats:
    """Return the ranks of values from 1 on, ``(N,)``; equal values share the mean of their ranks."""
    place = distinct(values)[1]
    return ranks_in(place, np.ones(len(values), dtype=bool))


def ranks_in(place: NDArray[np.int64], part: NDArray[np.bool_]) -> Floats:
    """Return the ranks of a part of the values among that part alone; equal ones share the mean of their ranks.

    Args:
        place: ``(N,)`` of each value among the distinct ones.
        part: ``(N,)`` which values are in it.
    """
    counts = np.bincount(place[part])
    return (np.cumsum(counts) - (counts - 1) / 2)[place[part]]


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    """Return the error rate among the most confident answers, for every share of answers that is given.

    Geifman and El-Yaniv 2017, selective classification. Equally confident answers are given together.

    Args:
        confidence: ``(N,)``.
        correct: ``(N,)`` whether each answer is right.

    Returns:
        ``(K,)`` coverages, ascending up to 1, and ``(K,)`` risks, both in [0, 1], one for each distinct confidence.

    Example:
        >>> coverage, risk = risk_coverage([0.9, 0.8, 0.7, 0.7], [1, 0, 1, 1])
        >>> coverage.tolist(), risk.tolist()
        ([0.25, 0.5, 1.0], [0.0, 0.5, 0.25])
    """
    sure, right = _pair(confidence, correct)
    order = np.argsort(-sure, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True)) if len(sure) else np.empty(0, np.int64)
    given = ends + 1.0
    return given / max(len(sure), 1), np.cumsum(1 - right[order])[ends] / given


def _pair(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != right.shape:
        raise ValueError(f"one confidence and one verdict for each answer are needed, not {sure.shape}, {right.shape}")
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():
        raise ValueError("confidences must lie between 0 and 1")
    return np.minimum(sure, 1.0), right
