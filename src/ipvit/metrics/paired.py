"""Two models on the same images: is the difference more than chance?"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 4_000_000  # random numbers drawn at a time, 32 MB


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

    The exact two-sided binomial test: under equality each disagreement is a fair coin. Probabilities are summed as
    logarithms, so tens of thousands of disagreements neither overflow nor round to zero too early.

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
    k = np.arange(1, fewer + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])
    peak = log_choose[-1]
    log_tail = peak + np.log(np.sum(np.exp(log_choose - peak))) - n * np.log(2)
    return float(min(1.0, 2 * np.exp(log_tail)))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the same images are needed for both models, (N,), not {first.shape} and {second.shape}")
    return first, second
