"""Resampling images: how much anything computed from error rates would vary with other images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 4_000_000  # weights held at a time, 16 MB


def resampled_means(values: ArrayLike, n_resamples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Return the means of columns over bootstrap samples of the rows.

    A row is an image, and is drawn with all its columns, so whatever its columns share (an image that is hard under
    one corruption is hard under the next) stays together. Two tables with the same number of rows and the same seed
    are resampled alike, which is what a ratio of two networks' errors on the same images needs.

    Args:
        values: ``(N, K)``; NaN is a missing value, left out of its column's mean.
        n_resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        ``(n_resamples, K)``; NaN where a sample has no value of a column.

    Example:
        >>> means = resampled_means([[0.0, 1.0], [1.0, 0.0]], n_resamples=500)
        >>> means.shape, bool((means.sum(axis=1) == 1).all())
        ((500, 2), True)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"one row per image is needed, (N, K) with N > 0, not {table.shape}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    known = ~np.isnan(table)
    filled, known = np.where(known, table, 0), known.astype(np.float64)
    rng = np.random.default_rng(seed)
    n = len(table)
    parts = []
    for start in range(0, n_resamples, max(1, _CHUNK // n)):
        size = min(max(1, _CHUNK // n), n_resamples - start)
        drawn = np.stack([np.bincount(rng.integers(n, size=n, dtype=np.int32), minlength=n) for _ in range(size)])
        weights = drawn.astype(np.float64)
        with np.errstate(invalid="ignore"):
            parts.append((weights @ filled) / (weights @ known))
    return np.concatenate(parts)
