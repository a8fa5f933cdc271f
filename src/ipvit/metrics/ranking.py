"""Do two ways of measuring put models into the same order?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def kendall_tau(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return Kendall's tau-b of two scores of the same models (Kendall 1945), which makes up for ties.

    Args:
        first: ``(..., M)``.
        second: ``(..., M)``, of the same models.

    Returns:
        ``(...)`` in [-1, 1]: 1 for the same order, -1 for the opposite one; NaN where one score has no order.

    Example:
        >>> kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]).round(3).item()
        0.667
    """
    one, other = np.broadcast_arrays(np.asarray(first, np.float64), np.asarray(second, np.float64))
    a, b = np.triu_indices(one.shape[-1], k=1)
    mine, theirs = np.sign(one[..., a] - one[..., b]), np.sign(other[..., a] - other[..., b])
    untied = np.sqrt((mine**2).sum(axis=-1) * (theirs**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(untied > 0, (mine * theirs).sum(axis=-1) / untied, np.nan)


def ranks_from_best(scores: ArrayLike) -> NDArray[np.int64]:
    """Return the rank of each score ``(..., M)``: 1 for the largest; equal scores share the better rank.

    Example:
        >>> ranks_from_best([0.5, 0.9, 0.5]).tolist()
        [2, 1, 2]
    """
    values = np.asarray(scores, np.float64)
    return 1 + (values[..., None, :] > values[..., :, None]).sum(axis=-1)
