"""Two groups of networks: does the kind of network matter, or could any split of them look like this?"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOST_EXACT = 200_000
"""Ways to divide the networks up to which all are looked at."""
_DRAWN = 100_000
_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class GroupDifference:
    """The difference of the means of two groups, and how unusual it is among all ways to divide the same units.

    Attributes:
        difference: mean of the first less mean of the second.
        low: end of the 95 % interval; infinite where so few units exclude nothing, NaN without an interval.
        high: the other end.
        p: two-sided p-value.
        smallest_p: the smallest p-value that so many units can give.
        exact: whether all ways were looked at, or as many drawn as there is time for.
    """

    difference: float
    low: float
    high: float
    p: float
    smallest_p: float
    exact: bool


def permutation_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, seed: int = 0) -> GroupDifference:
    """Compare two groups of units, such as networks, by permutation (Fisher 1935; Pitman 1937).

    If the group does not matter, every division of the units into groups of these sizes was equally likely. The p-value
    is the share of divisions whose difference of means is at least as far from zero as the one seen. The interval holds
    all shifts between the groups that the same test does not reject.

    Args:
        a: ``(N,)`` one value for each unit of the first group.
        b: ``(M,)`` likewise of the second.
        confidence: of the interval, in (0, 1).
        seed: of the divisions that are drawn where there are too many to look at all.

    Example:
        >>> found = permutation_difference([3, 4, 5], [0, 1, 2])
        >>> found.difference, found.p, found.smallest_p, found.high
        (3.0, 0.1, 0.1, inf)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or second.ndim != 1 or not len(first) or not len(second):
        raise ValueError("one value for each unit of both groups is needed, (N,) and (M,)")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("every unit needs a value")
    members, exact = _divisions(len(first), len(second), seed)

    def p_value(shift: float) -> float:
        values = np.concatenate([first - shift, second])
        of_a = members @ values
        means = of_a / len(first) - (values.sum() - of_a) / len(second)
        seen = abs(float(first.mean() - shift - second.mean()))
        hits = int((np.abs(means) >= seen - _TOLERANCE * max(1.0, seen)).sum())
        return hits / len(members) if exact else (hits + 1) / (len(members) + 1)

    difference = float(first.mean() - second.mean())
    ways = math.comb(len(first) + len(second), len(first))
    smallest = min((2 if len(first) == len(second) else 1) / ways, 1.0)
    level = 1 - confidence
    spread = float(np.ptp(np.concatenate([first, second])))
    low = -_end(lambda d: p_value(difference - d), level, spread) + difference
    high = _end(lambda d: p_value(difference + d), level, spread) + difference
    return GroupDifference(difference, low, high, p_value(0.0), smallest if exact else 1 / (len(members) + 1), exact)


def _end(p_value: Callable[[float], float], level: float, spread: float) -> float:
    """Return how far a shift may be from the difference seen before it is rejected; infinite where it never is."""
    far = max(spread, 1e-12)
    for _ in range(60):
        if p_value(far) <= level:
            break
        far *= 2
        if far > 1e6 * max(spread, 1e-12):
            return math.inf
    low, high = 0.0, far
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(middle) <= level else (middle, high)
    return high


def _divisions(n: int, m: int, seed: int) -> tuple[NDArray[np.float64], bool]:
    """Return which units are in the first group, ``(divisions, n + m)``, for all divisions or for some drawn ones."""
    total = n + m
    if math.comb(total, n) <= _MOST_EXACT:
        chosen = np.array(list(itertools.combinations(range(total), n)))
        members = np.zeros((len(chosen), total))
        np.put_along_axis(members, chosen, 1.0, axis=1)
        return members, True
    random = np.random.default_rng(seed)
    order = np.argsort(random.random((_DRAWN, total)), axis=1)[:, :n]
    members = np.zeros((_DRAWN, total))
    np.put_along_axis(members, order, 1.0, axis=1)
    return members, False
