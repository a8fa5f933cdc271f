"""What a perturbation leaves of an accuracy above chance, and whether it leaves more of one model than of another.

Retained accuracy is (accuracy - chance) / (clean accuracy - chance): a ratio of two means over the same images, so its
interval is Fieller's ("Some problems in interval estimation", Journal of the Royal Statistical Society B 16, 1954): all
ratios R for which the mean of (a - chance) - R (c - chance) over the images is not significantly different from zero.
Few images may differ at all; the moments are therefore taken with half an image of each of the four kinds (right or
wrong clean, right or wrong perturbed) added, as Agresti and Min add to paired proportions (Biostatistics 6, 2005).

Ratios of two models are compared by recovering the variance from their intervals (Zou and Donner, "Construction of
confidence limits about effect measures", Statistics in Medicine 27, 2008), with the correlation of the two ratios over
the images that both were measured on. Every p-value is that of the test whose interval is given: it is below 0.05
exactly where the 95 % interval excludes zero.

``tests/metrics/test_retained_coverage.py`` simulates the coverage of all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipvit.metrics.intervals import student_t_p_value, student_t_quantile, wilson

Floats = NDArray[np.float64]

_MOST_T = 60.0  # of Student's t; beyond it a p-value is 0 in print
_KINDS = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # clean, perturbed
_HALF = 0.5  # images of each kind that are added


@dataclasses.dataclass(frozen=True)
class Retained:
    """Retained accuracy and its confidence interval, as shares; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Tested:
    """A difference between two models, its confidence interval, and the p-value of "there is none"."""

    difference: float
    low: float
    high: float
    p: float


NOTHING = Retained(math.nan, math.nan, math.nan)
_UNTESTED = Tested(math.nan, math.nan, math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One model on images as they are and perturbed.

    Attributes:
        clean: ``(N,)`` whether each image is right as it is, or the share of runs in which it is.
        perturbed: ``(N,)`` the same of the perturbed image, or a weighted mean over several perturbations.
        chance: what guessing gives, as a share.
        clusters: ``(N,)`` which images share what happened to them; None where none do; a number below 0 where they do
            and nobody knows which, so that nothing has an interval.
    """

    clean: Floats
    perturbed: Floats
    chance: float
    clusters: NDArray[np.int64] | None = None

    @property
    def above_chance(self) -> bool:
        """Whether the clean accuracy is above chance: Wilson's 95 % interval ends above it."""
        n = len(self.clean)
        if not n:
            return False
        low, _ = wilson(min(float(self.clean.sum()), n), n)
        return low > self.chance

    @property
    def ratio(self) -> float:
        """Retained accuracy; NaN where the clean accuracy is not above chance."""
        if not self.above_chance:
            return math.nan
        return (float(self.perturbed.mean()) - self.chance) / (float(self.clean.mean()) - self.chance)


def retained_accuracy(
    clean: ArrayLike,
    perturbed: ArrayLike,
    chance: float,
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Retained:
    """Return (accuracy - chance) / (clean accuracy - chance) and its interval, over images.

    It is not clipped: below 0 a network is worse than guessing, above 1 better than on the images as they are.

    Args:
        clean: ``(N,)`` whether each image is right as it is, or the share of runs in which it is; in [0, 1].
        perturbed: ``(N,)`` the same of the perturbed image; a weighted mean over levels gives the area under the curve.
        chance: what guessing gives, as a share in [0, 1).
        clusters: ``(N,)`` numbers that say which images share what happened to them; below 0: nobody knows which.
        confidence: in (0, 1).

    Returns:
        NaN where the interval of the clean accuracy contains chance, or lies below it; ends are NaN where nothing can
        be said of them.

    Example:
        >>> found = retained_accuracy([1] * 90 + [0] * 10, [1] * 50 + [0] * 50, 0.1)
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.5, 0.386, 0.623)
    """
    pair = _pair(clean, perturbed, chance, clusters)
    value = pair.ratio
    if math.isnan(value):
        return NOTHING
    fits = _Fieller.of(pair)
    if fits is None:
        return Retained(value, math.nan, math.nan)
    ends = fits.ends(student_t_quantile(confidence, fits.df))
    if ends is None:
        return NOTHING
    return Retained(value, min(ends[0], value), max(ends[1], value))


def retained_of_other_images(
    clean: tuple[float, int], shifted: tuple[float, int], chance: float, confidence: float = 0.95
) -> Retained:
    """Return the retained accuracy where the clean images are others than the shifted ones.

    Args:
        clean: how many clean images are right, and of how many.
        shifted: the same of the shifted ones.
        chance: what guessing gives, as a share in [0, 1).
        confidence: in (0, 1).

    Returns:
        As :func:`retained_accuracy`, from the variances of two independent proportions, each with one right and one
        wrong image added.

    Example:
        >>> found = retained_of_other_images((90, 100), (50, 100), 0.1)
        >>> round(found.value, 3), found.low < 0.5 < found.high
        (0.5, True)
    """
    (right, n), (hits, m) = clean, shifted
    if not n or not m or wilson(min(right, n), n)[0] <= chance:
        return NOTHING
    value = (hits / m - chance) / (right / n - chance)
    q, p = (right + 1) / (n + 2), (hits + 1) / (m + 2)
    moments = _Fieller(q - chance, p - chance, q * (1 - q) / (n + 2), p * (1 - p) / (m + 2), 0.0, min(n, m))
    ends = moments.ends(student_t_quantile(confidence, min(n, m)))
    return NOTHING if ends is None else Retained(value, min(ends[0], value), max(ends[1], value))


def retained_difference(a: Pair, b: Pair, confidence: float = 0.95) -> Tested:
    """Return by how much more model A retains than model B, on the same images in the same order.

    Args:
        a: model A.
        b: model B, on the same images.
        confidence: in (0, 1).

    Returns:
        The difference of the two ratios, its interval and p-value; NaN where one of them has no value or no interval.

    Example:
        >>> clean, half, few = np.ones(100), np.repeat([1.0, 0.0], 50), np.repeat([1.0, 0.0], [20, 80])
        >>> found = retained_difference(Pair(clean, half, 0.1), Pair(clean, few, 0.1))
        >>> round(found.difference, 3), found.low > 0, found.p < 0.05
        (0.333, True, True)
    """
    first, second = a.ratio, b.ratio
    if math.isnan(first) or math.isnan(second):
        return _UNTESTED
    difference = first - second
    one, other = _Fieller.of(a), _Fieller.of(b)
    if one is None or other is None:
        return Tested(difference, math.nan, math.nan, math.nan)
    correlation = _correlation(_influence(a, first), _influence(b, second), a.clusters, one, other)

    def limits(t: float) -> tuple[float, float] | None:
        mine, theirs = one.ends(t), other.ends(t)
        if mine is None or theirs is None:
            return None
        (l1, u1), (l2, u2) = (
            (min(mine[0], first), max(mine[1], first)),
            (min(theirs[0], second), max(theirs[1], second)),
        )
        down = (first - l1) ** 2 + (u2 - second) ** 2 - 2 * correlation * (first - l1) * (u2 - second)
        up = (u1 - first) ** 2 + (second - l2) ** 2 - 2 * correlation * (u1 - first) * (second - l2)
        return difference - math.sqrt(max(down, 0.0)), difference + math.sqrt(max(up, 0.0))

    df = min(one.df, other.df)
    ends = limits(student_t_quantile(confidence, df))
    low, high = (math.nan, math.nan) if ends is None else ends
    return Tested(difference, low, high, _inverted(limits, df) if ends is not None else math.nan)


def drop_difference(a: Pair, b: Pair, confidence: float = 0.95) -> Tested:
    """Return by how much more accuracy model A loses than model B, as a share: (cA - pA) - (cB - pB), over images.

    Args:
        a: model A.
        b: model B, on the same images in the same order.
        confidence: in (0, 1).

    Returns:
        The difference, Student's t interval (with an image added on which only A, and one on which only B loses) within
        [-2, 2], and the p-value of the same test.

    Example:
        >>> clean, half, few = np.ones(100), np.repeat([1.0, 0.0], 50), np.repeat([1.0, 0.0], [20, 80])
        >>> found = drop_difference(Pair(clean, half, 0.1), Pair(clean, few, 0.1))
        >>> round(found.difference, 3), found.high < 0
        (-0.3, True)
    """
    lost = (a.clean - a.perturbed) - (b.clean - b.perturbed)
    if not len(lost):
        return _UNTESTED
    difference = float(lost.mean())
    variance = _variance(lost, a.clusters)
    if variance is None:
        return Tested(difference, math.nan, math.nan, math.nan)
    deviation, df = math.sqrt(variance[0]), variance[1]
    half = student_t_quantile(confidence, df) * deviation
    p = student_t_p_value(abs(difference) / deviation, df)
    return Tested(difference, max(difference - half, -2.0), min(difference + half, 2.0), p)


@dataclasses.dataclass(frozen=True)
class _Fieller:
    """Means, variances of the means and their covariance of what is above chance: ``y`` clean, ``x`` perturbed."""

    y: float
    x: float
    yy: float
    xx: float
    xy: float
    df: int

    @classmethod
    def of(cls, pair: Pair) -> _Fieller | None:
        """Return the moments of a pair; None where they are unknown."""
        values = np.stack([pair.clean, pair.perturbed], axis=1) - pair.chance
        added = _KINDS - pair.chance
        size = len(values) + _HALF * len(added)
        mean = (values.sum(axis=0) + _HALF * added.sum(axis=0)) / size
        residuals, others = values - mean, added - mean
        own = (residuals.T @ residuals + _HALF * others.T @ others) / (size * (size - 1))
        df = len(values) + 1
        if pair.clusters is not None:
            if (pair.clusters < 0).any():
                return None
            names, place = np.unique(pair.clusters, return_inverse=True)
            if len(names) < 2:
                return None
            sums = np.stack(
                [np.bincount(place, weights=column, minlength=len(names)) for column in residuals.T], axis=1
            )
            shared = (sums.T @ sums + _HALF * others.T @ others) / size**2 * len(names) / (len(names) - 1)
            # images under one mask are no better than as many independent ones
            if np.trace(shared) > np.trace(own):
                own, df = shared, len(names) - 1
        return cls(float(mean[0]), float(mean[1]), float(own[0, 0]), float(own[1, 1]), float(own[0, 1]), df)

    def ends(self, t: float) -> tuple[float, float] | None:
        """Return all ratios within ``t`` standard errors; None where they have no end."""
        a = self.y**2 - t**2 * self.yy
        if a <= 0 or self.y <= 0:
            return None
        b = self.x * self.y - t**2 * self.xy
        c = self.x**2 - t**2 * self.xx
        root = math.sqrt(max(b * b - a * c, 0.0))
        return (b - root) / a, (b + root) / a

    def ratio_variance(self) -> float:
        """Return the variance of the ratio to first order."""
        ratio = self.x / self.y
        return max(self.xx - 2 * ratio * self.xy + ratio**2 * self.yy, 0.0) / self.y**2


def _influence(pair: Pair, ratio: float) -> Floats:
    """Return what every image adds to the ratio, to first order."""
    above = float(pair.clean.mean()) - pair.chance
    return ((pair.perturbed - pair.chance) - ratio * (pair.clean - pair.chance)) / above


def _correlation(
    first: Floats, second: Floats, clusters: NDArray[np.int64] | None, one: _Fieller, other: _Fieller
) -> float:
    """Return how the two ratios vary together; the variances, with images added, make it err towards 0."""
    n = len(first)
    if clusters is not None:
        _, place = np.unique(clusters, return_inverse=True)
        first, second = (np.bincount(place, weights=values).astype(np.float64) for values in (first, second))
    together = float(first @ second) / n**2
    apart = math.sqrt(one.ratio_variance() * other.ratio_variance())
    return min(max(together / apart, -1.0), 1.0) if apart > 0 else 0.0


def _variance(values: Floats, clusters: NDArray[np.int64] | None) -> tuple[float, int] | None:
    """Return the variance of a mean of values in [-2, 2], with one of -1 and one of 1 added, and its freedom."""
    n = len(values)
    padded = np.append(values, (1.0, -1.0))
    own = float(padded.var(ddof=1)) / n
    if clusters is None:
        return own, n + 1
    if (clusters < 0).any():
        return None
    names, place = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(place, weights=values - values.mean(), minlength=len(names))
    shared = (float(sums @ sums) + 2.0) / n**2 * len(names) / (len(names) - 1)
    return (shared, len(names) - 1) if shared > own else (own, n + 1)


def _inverted(limits: Callable[[float], tuple[float, float] | None], df: int) -> float:
    """Return the p-value at which an interval just touches zero."""

    def holds_zero(t: float) -> bool:
        ends = limits(t)
        return ends is None or ends[0] <= 0 <= ends[1]

    if not holds_zero(_MOST_T):
        return student_t_p_value(_MOST_T, df)
    low, high = 0.0, _MOST_T
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if holds_zero(middle) else (middle, high)
    return student_t_p_value(high, df)


def _pair(clean: ArrayLike, perturbed: ArrayLike, chance: float, clusters: ArrayLike | None) -> Pair:
    first, second = np.asarray(clean, dtype=np.float64), np.asarray(perturbed, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the same images are needed, clean and perturbed, (N,), not {first.shape} and {second.shape}")
    if not 0 <= chance < 1:
        raise ValueError(f"chance must be a share in [0, 1), not {chance}")
    for values in (first, second):
        if np.any(values < 0) or np.any(values > 1):
            raise ValueError("shares of runs lie in [0, 1]")
    members = None if clusters is None else np.asarray(clusters, dtype=np.int64)
    return Pair(first, second, chance, members)
