"""How sure a measure of calibration is, and whether its interval keeps what it promises at so many images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipvit.metrics.calibration import (
    BINS,
    Floats,
    ReliabilityBins,
    Scheme,
    folded_mean,
    less_bias,
    ranks_in,
    reliability_bins,
)
from ipvit.metrics.intervals import UNLIMITED, normal_quantile, student_t_quantile
from ipvit.metrics.numbering import distinct

LEAST_COVERAGE = 0.9
"""A 95 % interval whose simulated coverage is below this is not given."""
FEWEST_OF_A_KIND = 10
"""Right and wrong answers that an interval of the AUROC needs: below, its simulated coverage can be below 90 %."""
_DRAWS = 200
_DRAWN = (200, 2000)  # images of a simulated sample: with more of them, coverage only rises


@dataclasses.dataclass(frozen=True)
class Estimated:
    """A measure with its 95 % interval.

    Attributes:
        value: the estimate; NaN where there is none.
        low: end of the interval; NaN where there is none.
        high: the other end.
        reason: why there is no interval; empty where there is one.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def ece_estimate(
    confidence: ArrayLike,
    correct: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    bins: int = BINS,
    scheme: Scheme = "mass",
    seed: int = 0,
) -> Estimated:
    """Return the debiased calibration error with a bias-corrected interval.

    The interval holds every calibration error, in proportion to the measured gaps, under which the plain error would
    come out as it did: its mean and variance follow from folded normals, so what chance adds is part of both ends. Its
    coverage is simulated with the very bins, drawing how many answers fall into each and how many of them are right, at
    calibration errors of both ends and of the estimate; where the smallest is below 90 %, no interval is given.
    Estimate and interval are of the error of the answers in bins.

    Args:
        confidence: ``(N,)`` in [0, 1].
        correct: ``(N,)`` whether each answer is right.
        clusters: ``(N,)`` which answers are not independent, such as those of one image in several runs; any values.
        bins: number of bins.
        scheme: of equal width, or of equal mass.
        seed: of the simulation.
    """
    found = reliability_bins(confidence, correct, bins, scheme)
    if not len(found.counts):
        return Estimated(math.nan, reason="there is no answer")
    trials, common = _effective(found, np.asarray(confidence, np.float64), np.asarray(correct, np.float64), clusters)
    variance = found.accuracy * (1 - found.accuracy) / trials
    value = less_bias(found.shares, found.gaps, np.sqrt(variance))
    within = _within(found, np.asarray(confidence, np.float64))
    spread = np.sqrt(_spread(found.accuracy, trials) ** 2 + within / trials)
    low, high = _ece_interval(found.shares, found.gaps, spread, _Others(common, float(trials.sum())))
    low, high = min(low, value), min(max(high, value), 1.0)
    coverage = min(_ece_coverage(found, trials, within, common, truth, seed) for truth in {low, value, high})
    if coverage < LEAST_COVERAGE:
        return Estimated(value, reason=_too_rare(coverage, trials.sum()))
    return Estimated(value, low, high)


def _too_rare(coverage: float, answers: float) -> str:
    return (
        f"the simulated coverage of a 95 % interval is {100 * coverage:.1f} % with {answers:,.0f} independent answers"
    )


def _effective(
    found: ReliabilityBins, confidence: Floats, correct: Floats, clusters: ArrayLike | None
) -> tuple[Floats, float]:
    """Return how many independent answers each bin is worth, and by how much what bins share widens the whole."""
    counts = found.counts.astype(np.float64)
    if clusters is None:
        return counts, 1.0
    owner = distinct(clusters)[1]
    n_clusters, n_bins = int(owner.max()) + 1, len(counts)
    if n_clusters == len(owner):
        return counts, 1.0
    residual = confidence - correct - found.gaps[found.place]
    cell = owner.astype(np.int64) * n_bins + found.place
    cells, cell = distinct(cell)
    totals = np.bincount(cell, weights=residual)
    of_bin = np.bincount(cells % n_bins, minlength=n_bins).astype(np.float64)  # clusters of each bin
    variance = np.bincount(cells % n_bins, weights=totals**2, minlength=n_bins) / counts**2
    smooth = _spread(found.accuracy, counts) ** 2 * counts
    with np.errstate(divide="ignore"):
        trials = np.clip(smooth / variance, of_bin, counts)
    signed = np.bincount(owner, weights=np.sign(found.gaps)[found.place] * residual) / len(owner)
    apart = float(found.shares**2 @ (smooth / trials))
    return trials, max(1.0, float(signed @ signed) / apart)


def _within(found: ReliabilityBins, confidence: Floats) -> Floats:
    """Return the variance of the confidences within each bin."""
    squares = np.bincount(found.place, weights=(confidence - found.confidence[found.place]) ** 2)
    return squares / found.counts


def _spread(accuracy: Floats, trials: Floats) -> Floats:
    """Return the standard deviation of accuracies, with half an answer of each kind added: none is certain."""
    rate = (accuracy * trials + 0.5) / (trials + 1)
    return np.sqrt(rate * (1 - rate) / trials)


def _directions(shares: Floats, gaps: Floats, spread: Floats) -> Floats:
    """Return how a calibration error of 1 is shared out to the bins ``(..., K)``: as the measured gaps, less chance.

    Each gap is drawn to their mean by as much as chance alone would spread them (empirical Bayes, Efron and Morris
    1973): noise that is taken for gaps would be counted as error.
    """
    middle = (gaps * shares).sum(axis=-1, keepdims=True)
    between = (((gaps - middle) ** 2 - spread**2) * shares).sum(axis=-1, keepdims=True)
    between = np.maximum(between, 0.0)
    drawn = middle + between / (between + spread**2) * (gaps - middle)
    whole = (np.abs(drawn) * shares).sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 1e-12, drawn / whole, 1.0)


@dataclasses.dataclass(frozen=True)
class _Others:
    """What varies beside the answers of each bin: by how much what bins share widens the whole, and trials in all."""

    common: float
    trials: float


def _standing(shares: Floats, gaps: Floats, spread: Floats, true: Floats, others: _Others) -> Floats:
    """Return by how many deviations a plain error exceeds what true gaps would give, ``(...)`` of ``(..., K)``.

    How many answers fall into each bin varies, too, which matters where gaps differ.
    """
    mean = folded_mean(true, spread)
    variance = (np.maximum(true**2 + spread**2 - mean**2, 0.0) * shares**2).sum(axis=-1)
    between = (shares * true**2).sum(axis=-1) - ((shares * np.abs(true)).sum(axis=-1)) ** 2
    whole = (np.abs(gaps) * shares).sum(axis=-1) - (mean * shares).sum(axis=-1)
    return whole / np.sqrt((variance + np.maximum(between, 0.0) / others.trials) * others.common)


def _ece_interval(shares: Floats, gaps: Floats, spread: Floats, others: _Others) -> tuple[float, float]:
    """Return the least and the largest error that the plain one agrees with."""
    z, directions = normal_quantile(0.95), _directions(shares, gaps, spread)

    def end(least: float) -> float:
        return _largest(lambda error: bool(_standing(shares, gaps, spread, error * directions, others) > least))

    return end(z), end(-z)


def _largest(below: Callable[[float], bool]) -> float:
    """Return the number in [0, 1] up to which something holds, by bisection; 0 or 1 where it never or always does."""
    if not below(0.0):
        return 0.0
    if below(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def _ece_coverage(
    found: ReliabilityBins, trials: Floats, within: Floats, common: float, truth: float, seed: int
) -> float:
    """Return how often the interval holds a calibration error that is shared out to the bins as the measured one."""
    spread = np.sqrt(_spread(found.accuracy, trials) ** 2 + within / trials)
    right = np.clip(found.confidence - truth * _directions(found.shares, found.gaps, spread), 0.0, 1.0)
    true = float(found.shares @ np.abs(found.confidence - right))
    rng, whole = np.random.default_rng(seed), max(round(float(trials.sum()) / common), 1)
    counts = rng.multinomial(whole, found.shares, size=_DRAWS)
    some = np.maximum(counts, 1)
    drawn = rng.binomial(counts, right) / some
    gaps = np.where(counts > 0, found.confidence - drawn, 0.0)
    spread = np.sqrt(_spread(drawn, some) ** 2 + within / some)
    shares = counts / whole
    standing = _standing(shares, gaps, spread, true * _directions(shares, gaps, spread), _Others(1.0, float(whole)))
    return float((np.abs(standing) <= normal_quantile(0.95)).mean())


def mean_estimate(
    values: ArrayLike, clusters: ArrayLike | None = None, limits: tuple[float, float] = UNLIMITED, *, seed: int = 0
) -> Estimated:
    """Return a mean over images, such as that of a proper score, with Student's t interval.

    Its coverage is simulated by drawing samples of the values; where it is below 90 %, as with few images of which one
    has a very large value, no interval is given.

    Args:
        values: ``(N,)`` one for each image.
        clusters: ``(N,)`` which images are not independent, such as those that share a mask; any values.
        limits: smallest and largest value; no interval leaves them.
        seed: of the simulation.
    """
    whole = np.asarray(values, dtype=np.float64)
    if not len(whole):
        return Estimated(math.nan, reason="there is no answer")
    sums, sizes = whole, np.ones(len(whole))
    if clusters is not None:
        owner = distinct(clusters)[1]
        sums, sizes = np.bincount(owner, weights=whole).astype(np.float64), np.bincount(owner).astype(np.float64)
    value = float(whole.mean())
    if len(sums) < 2:
        return Estimated(value, reason="one image says nothing of how others vary")
    half = float(_half_width(sums[None], sizes[None])[0])
    if not half > 0:
        return Estimated(value, reason="all images have the same value, which does not say how others vary")
    coverage = 0.0
    for most in _DRAWN:  # the larger sample only where the smaller one does not do
        if coverage < LEAST_COVERAGE:
            coverage = _mean_coverage(sums, sizes, value, min(len(sums), most), seed)
    if coverage < LEAST_COVERAGE:
        return Estimated(value, reason=_too_rare(coverage, len(sums)))
    return Estimated(value, max(value - half, limits[0]), min(value + half, limits[1]))


def _half_width(sums: Floats, sizes: Floats) -> Floats:
    """Return half the width of Student's t interval of means of clusters ``(..., N)`` (Cochran 1977, section 9A.1)."""
    n, whole = sums.shape[-1], sizes.sum(axis=-1)
    residual = sums - sizes * (sums.sum(axis=-1) / whole)[..., None]
    variance = n / (n - 1) * (residual**2).sum(axis=-1) / whole**2
    return student_t_quantile(0.95, n - 1) * np.sqrt(variance)


def _mean_coverage(sums: Floats, sizes: Floats, truth: float, n: int, seed: int) -> float:
    drawn = np.random.default_rng(seed).integers(len(sums), size=(_DRAWS, n))
    parts, weights = sums[drawn], sizes[drawn]
    means = parts.sum(axis=1) / weights.sum(axis=1)
    return float((np.abs(means - truth) <= _half_width(parts, weights)).mean())


def auroc_estimate(confidence: ArrayLike, correct: ArrayLike, clusters: ArrayLike | None = None) -> Estimated:
    """Return how well confidence tells right from wrong answers, with DeLong's interval on the scale of the logit.

    DeLong et al. 1988; answers of one image, or of images that share a mask, count together as in Obuchowski 1997.

    Args:
        confidence: ``(N,)``.
        correct: ``(N,)`` whether each answer is right.
        clusters: ``(N,)`` which answers are not independent; any values.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64) > 0
    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return Estimated(math.nan, reason=f"all answers are {'right' if positive else 'wrong'}")
    owner: NDArray[Any] = np.arange(len(sure))
    if clusters is not None:
        owner = distinct(clusters)[1]
    placed = np.empty(len(sure))
    place = distinct(sure)[1]
    ranks = ranks_in(place, np.ones(len(sure), dtype=bool))
    placed[right] = (ranks[right] - ranks_in(place, right)) / negative
    placed[~right] = 1 - (ranks[~right] - ranks_in(place, ~right)) / positive
    value = float(placed[right].mean())
    fewest = min(len(distinct(owner[part])[0]) for part in (right, ~right))
    if fewest < FEWEST_OF_A_KIND:
        kind = "right" if positive < negative else "wrong"
        return Estimated(value, reason=f"it needs {FEWEST_OF_A_KIND} {kind} answers of different images, not {fewest}")
    influence = np.where(right, (placed - value) / positive, (placed - value) / negative)
    totals = np.bincount(owner, weights=influence)
    correction = fewest / (fewest - 1)
    deviation = math.sqrt(float(totals @ totals) * correction)
    if not 0 < value < 1 or not deviation > 0:
        return Estimated(value, reason="confidence parts right from wrong answers without exception")
    middle, half = math.log(value / (1 - value)), normal_quantile(0.95) * deviation / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - half, middle + half))
    return Estimated(value, low, high)
