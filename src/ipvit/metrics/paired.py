"""Two models on the same images: is the difference more than chance?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipvit.metrics.intervals import mean_interval, normal_quantile

_CHUNK = 4_000_000  # random numbers drawn at a time, 32 MB
_MOST_EXACT = 3000  # images that differ, up to which sums over flipped signs are counted


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Result of McNemar's exact test.

    Attributes:
        b: images only model A has right.
        c: images only model B has right.
        p_value: probability of a split at least as uneven as this one if both models were equally good.
    """

    b: int
    c: int
    p_value: float


@dataclasses.dataclass(frozen=True)
class Paired:
    """Mean difference A - B over images and its confidence interval, in the unit of the values."""

    difference: float
    low: float
    high: float


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Test whether two models are equally accurate, from the images on which they disagree (McNemar 1947).

    The exact two-sided binomial test: under equality each disagreement is a fair coin. Ways are counted in whole
    numbers and divided once, so tens of thousands of disagreements neither overflow nor round to zero too early.

    Args:
        correct_a: ``(N,)`` booleans, model A right on image i.
        correct_b: ``(N,)`` the same images for model B.

    Example:
        >>> round(mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]).p_value, 6)
        0.03125
    """
    a, b = _pairs(correct_a, correct_b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test needs right or wrong per image; average over runs needs paired_bootstrap")
    only_a, only_b = int(np.sum((a == 1) & (b == 0))), int(np.sum((a == 0) & (b == 1)))
    return McNemar(only_a, only_b, _sign_test(only_a, only_b))


def sign_flip_test(a: ArrayLike, b: ArrayLike, n_runs: int = 1) -> float:
    """Return the two-sided p-value of "both models are equally good", from the differences per image.

    If they are, it is a fair coin for every image which of the two has the higher value. The p-value is the share of
    all ways to flip the signs of the differences whose sum is at least as far from zero as the observed one. With right
    or wrong per image and one run this is McNemar's exact test. Averages over runs are counted exactly too, as long as
    no more than a few thousand images differ; beyond that, and for other quantities, the sum's normal limit is used.

    Args:
        a: ``(N,)`` one value per image, for example the share of runs in which model A was right.
        b: ``(N,)`` the same images for model B. Images where either value is NaN are left out.
        n_runs: runs per image: the values are multiples of 1 / ``n_runs``.

    Returns:
        The p-value in (0, 1]; 1 where nothing differs.

    Example:
        >>> round(sign_flip_test([1, 1, 1, 1, 1, 0.5], [0, 0, 0, 0, 0, 0], n_runs=2), 5)
        0.03125
    """
    first, second = _pairs(a, b)
    differences = first - second
    differences = differences[np.isfinite(differences) & (np.abs(differences) > 1e-9)]
    steps = np.rint(differences * n_runs).astype(int)
    exact = bool(np.all(np.abs(differences * n_runs - steps) < 1e-6))
    if exact and len(set(np.abs(steps).tolist())) <= 1:  # one size of difference: a count of coins, however many
        return _sign_test(int(np.sum(steps > 0)), int(np.sum(steps < 0)))
    if exact and len(steps) <= _MOST_EXACT:
        return _flipped_sums(steps)
    return math.erfc(abs(float(differences.sum())) / math.sqrt(2 * float(np.sum(differences**2))))


def _flipped_sums(steps: NDArray[np.int64]) -> float:
    """P(|S| >= |observed|) for S the sum of whole numbers with fair signs: one binomial per size, convolved."""
    distribution = np.ones(1)
    for size, count in zip(*np.unique(np.abs(steps), return_counts=True), strict=True):
        heads = np.zeros(2 * int(count) * int(size) + 1)
        heads[:: 2 * int(size)] = _fair_coins(int(count))  # k heads of `count`: a sum of (2 k - count) * size
        distribution = np.convolve(distribution, heads)
    total = len(distribution) // 2
    sums = np.abs(np.arange(len(distribution)) - total)
    return float(min(1.0, distribution[sums >= abs(int(steps.sum()))].sum()))


def _fair_coins(n: int) -> NDArray[np.float64]:
    """P(k heads of n fair coins) for k = 0 .. n."""
    k = np.arange(1, n + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])
    return np.exp(log_choose - n * math.log(2))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values corrected for their number (Holm 1979): the chance of a single false alarm stays below each.

    Args:
        p_values: ``(N,)``; NaN stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected


def paired_proportions(a: ArrayLike, b: ArrayLike, n_runs: int = 1, confidence: float = 0.95) -> Paired:
    """Return the difference of two models' accuracies on the same images, with Tango's score interval.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17, 1998: all differences that a score test would not reject, which keeps its coverage where
    few images tell the models apart. (There a bootstrap's interval is too narrow, and has no width where none does.)

    With several runs per image the counts are those of an effective sample, as in
    :func:`ipvit.metrics.intervals.accuracy_interval`: as many images with one run as would let the mean difference vary
    as much.

    Args:
        a: ``(N,)`` share of the runs in which model A was right on image i, in [0, 1].
        b: ``(N,)`` the same images for model B. Images where either value is NaN are left out.
        n_runs: runs per image.
        confidence: in (0, 1).

    Returns:
        The difference A - B and its interval, in [-1, 1]; NaN without an image.

    Example:
        >>> paired = paired_proportions([1] * 10 + [0] * 40, [0] * 2 + [1] * 8 + [0] * 40)
        >>> round(paired.difference, 3), round(paired.low, 3), round(paired.high, 3)
        (0.04, -0.034, 0.135)
    """
    first, second = _pairs(a, b)
    differences = first - second
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    if n == 0:
        return Paired(math.nan, math.nan, math.nan)
    if np.abs(differences).max() > 1 + 1e-9:
        raise ValueError("shares of runs lie in [0, 1]")
    better, worse = float(differences.clip(min=0).mean()), float((-differences).clip(min=0).mean())
    size = n * _gain_of_runs(differences, n_runs)
    low, high = _tango(better * size, worse * size, size, normal_quantile(confidence))
    return Paired(float(differences.mean()), low, high)


def paired_means(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, span: float = math.inf) -> Paired:
    """Return the mean of ``a - b`` over images with Student's t interval, for quantities such as correlations.

    Images where either value is NaN are left out; with fewer than two left the ends are NaN. ``span`` is the largest
    difference that there can be; see :func:`ipvit.metrics.intervals.mean_interval`.
    """
    first, second = _pairs(a, b)
    differences = first - second
    differences = differences[~np.isnan(differences)]
    low, high = mean_interval(differences, confidence, (-span, span))
    return Paired(float(differences.mean()) if len(differences) else math.nan, low, high)


def _gain_of_runs(differences: NDArray[np.float64], n_runs: int) -> float:
    """How much less the mean difference varies than that of right or wrong with the same means: 1 .. ``n_runs``."""
    if n_runs == 1:
        return 1.0
    with_pseudo_counts = np.append(differences, (1.0, -1.0))  # few images may differ at all
    single = float(np.abs(with_pseudo_counts).mean() - with_pseudo_counts.mean() ** 2)
    return min(max(single / float(with_pseudo_counts.var(ddof=1)), 1.0), float(n_runs))


def _tango(b: float, c: float, n: float, z: float) -> tuple[float, float]:
    """Ends of the score interval for ``b`` and ``c`` disagreements either way among ``n`` images."""

    def score(delta: float) -> float:
        p = 2 * n
        q = (2 * n - b + c) * delta - b - c
        r = -c * delta * (1 - delta)
        only_b = (math.sqrt(max(q * q - 4 * p * r, 0.0)) - q) / (2 * p)  # the likeliest share at this difference
        variance = n * (2 * only_b + delta * (1 - delta))
        distance = b - c - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    observed = (b - c) / n
    return _root(lambda d: score(d) - z, -1.0, observed), _root(lambda d: score(d) + z, observed, 1.0)


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero between two ends; the nearer end where it does not."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Paired:
    """Return the mean of ``a - b`` over images with a percentile bootstrap interval over images.

    Whole images are drawn, so whatever several runs of one image share stays together. The result does not depend on
    the order of the images.

    Args:
        a: ``(N,)`` one value per image, for example the share of runs in which model A was right.
        b: ``(N,)`` the same images for model B. Images where either value is NaN are left out.
        n_resamples: bootstrap samples.
        seed: seed of the resampling.
        confidence: in (0, 1).

    Returns:
        Difference and interval; NaN without an image, and NaN ends with a single one.

    Example:
        >>> paired_bootstrap([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], seed=1)
        Paired(difference=0.25, low=0.0, high=0.75)
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    first, second = _pairs(a, b)
    differences = np.sort(first - second)
    differences = differences[~np.isnan(differences)]
    if len(differences) == 0:
        return Paired(np.nan, np.nan, np.nan)
    mean = float(differences.mean())
    if len(differences) == 1:
        return Paired(mean, np.nan, np.nan)
    resampled = _resampled_means(differences, n_resamples, np.random.default_rng(seed))
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Paired(mean, float(low), float(high))


def _resampled_means(values: NDArray[np.float64], n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of ``n_resamples`` samples with replacement, in little memory."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    means = np.empty(n_resamples)
    # Right-or-wrong differences take few values: how often each is drawn is multinomial, the same distribution as
    # drawing n images, for the price of a handful of numbers. Drawing a multinomial over very many values is slower
    # than drawing the images themselves.
    grouped = len(distinct) * 10 < n
    step = max(1, _CHUNK // (len(distinct) if grouped else n))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        if grouped:
            means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ distinct / n
        else:
            means[start : start + size] = values[rng.integers(n, size=(size, n), dtype=np.int32)].mean(axis=1)
    return means


def _sign_test(b: int, c: int) -> float:
    """Two-sided p-value of ``b`` heads and ``c`` tails of a fair coin."""
    n, fewer = b + c, min(b, c)
    if b == c:
        return 1.0
    ways = tail = 1
    for k in range(1, fewer + 1):  # whole numbers: logarithms have other last bits on other processors
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, tail / 2 ** (n - 1))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the same images are needed for both models, (N,), not {first.shape} and {second.shape}")
    return first, second
