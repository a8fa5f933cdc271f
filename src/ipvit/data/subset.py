"""Which images a limited run uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipvit.perturb.seeding import keys


def select(ids: Sequence[str], limit: int | None) -> np.ndarray:
    """Return the positions of ``limit`` images in their order; all where ``limit`` is None or too large.

    The choice is random but fixed: it depends on the ids alone, and the images of a smaller limit are among those of a
    larger one, so that raising the limit only adds images. The first images would not do: class folders are sorted.
    """
    if limit is None or limit >= len(ids):
        return np.arange(len(ids))
    rank = np.argsort(keys(ids, "limit"), kind="stable")
    return np.sort(rank[:limit])
