"""What a number of ours says of one that others state: words, and the rule that both kinds of comparison follow."""

from __future__ import annotations

import math
from typing import Literal

Verdict = Literal["within", "outside", "too uncertain"]

WITHIN, OUTSIDE, UNCERTAIN = "within", "outside", "too uncertain"


class NotComparableError(Exception):
    """There is something in a run, but not what others measured; the message says why."""


def judged(low: float | None, high: float | None, margin: float, uncertainty: float) -> Verdict | None:
    """Return what the 95 % interval of a difference says.

    Args:
        low: end of the interval of ours less theirs; None or infinite without one.
        high: the other end.
        margin: by how much the two may differ and still be called the same.
        uncertainty: of theirs.

    Returns:
        ``within``: the whole interval lies within the margin; ``outside``: it excludes zero by more than the
        uncertainty; else ``too uncertain``. None without an interval.

    >>> judged(-0.5, 0.5, 1.0, 0.1), judged(2.0, 3.0, 1.0, 0.1), judged(-3.0, 3.0, 1.0, 0.1)
    ('within', 'outside', 'too uncertain')
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    if max(-low, high) <= margin:
        return WITHIN
    return OUTSIDE if low > uncertainty or high < -uncertainty else UNCERTAIN
