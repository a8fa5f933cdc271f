"""How large a difference between two models must be to be found: the power of the paired tests."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

POWER = 0.8
"""How often a difference is found that is called detectable."""

_MOST_EXACT = 100.0  # expected images on which two models disagree, up to which the exact test's power is summed
_HALVINGS = 24  # of the interval in which a difference is looked for
_NORMAL = NormalDist()


def mcnemar_power(n: int, disagreement: float, difference: float, alpha: float = 0.05) -> float:
    """Return how often McNemar's exact test finds a difference between the accuracies of two models.

    The number of images on which one model only is right is binomial, and so is its split; the power is summed over
    both. Beyond 100 such images it is the normal limit with the correction for continuity (R. J. Connor, "Sample size
    for testing differences in proportions for the paired-sample design", Biometrics 43, 1987).

    Args:
        n: images.
        disagreement: share of the images on which one model only is right, in [0, 1].
        difference: of the accuracies, as a share; at most the disagreement.
        alpha: the difference is found where the p-value is below.

    Example:
        >>> round(mcnemar_power(2000, 0.1, 0.03), 3), round(mcnemar_power(100, 0.1, 0.0), 3)
        (0.987, 0.022)
    """
    if not 0 <= abs(difference) <= disagreement + 1e-12 or disagreement > 1:
        raise ValueError(f"a difference of {difference} needs a disagreement between that and 1, not {disagreement}")
    if n < 1 or disagreement <= 0:
        return 0.0
    if n * disagreement > _MOST_EXACT:
        return _normal_power(n, disagreement, abs(difference), alpha, correction=1.0)
    often = _binomial(n, disagreement)
    first = min((1 + abs(difference) / disagreement) / 2, 1.0)
    return float(sum(often[m] * _rejects(int(m), first, alpha) for m in np.flatnonzero(often > 1e-9)))


def detectable_proportion(n: int, disagreement: float, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest difference of two accuracies that McNemar's exact test finds often enough.

    Where it is larger than the disagreement that was seen, the models are taken to disagree in that direction only.

    Args:
        n: images.
        disagreement: share of the images on which one model only is right, as it was seen.
        alpha: level of the test.
        power: how often it is found.

    Returns:
        As a share; NaN where even a difference on all images would not be found.

    Example:
        >>> round(detectable_proportion(2000, 0.1), 4), round(detectable_proportion(2000, 0.0), 4)
        (0.0203, 0.004)
    """

    def found(difference: float) -> float:
        return mcnemar_power(n, min(max(disagreement, difference), 1.0), difference, alpha)

    return _smallest(found, 1.0, power)


def detectable_mean(n: float, second_moment: float, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest mean difference that the sign-flip test finds often enough, in its normal limit.

    Args:
        n: independent images; where images share a mask, as many as would let the mean vary as much.
        second_moment: mean of the squared differences, as it was seen.
        alpha: level of the test.
        power: how often it is found.

    Returns:
        In the unit of the differences; NaN where nothing varies.

    Example:
        >>> round(detectable_mean(100, 1.0), 3)
        0.277
    """
    most = math.sqrt(second_moment) if second_moment > 0 else 0.0
    if not n > 1 or not most > 0:
        return math.nan
    return _smallest(lambda d: _normal_power(n, second_moment, d, alpha), most, power)


def _normal_power(n: float, moment: float, difference: float, alpha: float, correction: float = 0.0) -> float:
    """Power of "sum of the differences beyond z standard errors", these from the mean of their squares."""
    z = _NORMAL.inv_cdf(1 - alpha / 2)
    spread = math.sqrt(max(n * (moment - difference**2), 0.0))
    bound = z * math.sqrt(n * moment) + correction
    if spread == 0:
        return float(n * difference > bound)
    return _NORMAL.cdf((n * difference - bound) / spread) + _NORMAL.cdf((-n * difference - bound) / spread)


def _smallest(found: Callable[[float], float], most: float, power: float) -> float:
    if found(most) < power:
        return math.nan
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


@functools.lru_cache(maxsize=4096)
def _largest_rejected(m: int, alpha: float) -> int:
    """The smaller count up to which m fair coins are called unfair; -1 where they never are."""
    tail = 2 * np.cumsum(_binomial(m, 0.5))
    return int(np.searchsorted(tail, alpha, side="left")) - 1


def _rejects(m: int, first: float, alpha: float) -> float:
    """P(the split of m disagreements is called uneven) where each falls to one side with a probability."""
    most = _largest_rejected(m, alpha)
    if most < 0:
        return 0.0
    split = _binomial(m, first)
    return float(split[: most + 1].sum() + split[m - most :].sum())


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """P(k of n) for k = 0 .. n."""
    k = np.arange(n + 1)
    if p <= 0 or p >= 1:
        return (k == (n if p >= 1 else 0)).astype(np.float64)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(n - k[1:] + 1) - np.log(k[1:]))])
    return np.exp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p))
