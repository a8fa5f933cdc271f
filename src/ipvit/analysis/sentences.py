"""Numbers in sentences, also where there are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def ends(row: Mapping[str, Any], name: str, digits: int, *, signed: bool = False) -> str:
    """Return the interval of a column for a sentence, with a space before it; empty where there is none.

    Args:
        row: of a table with the columns ``NAME_low`` and ``NAME_high``.
        name: of the column.
        digits: after the point.
        signed: write the sign of positive numbers too.

    >>> ends({"top1_low": 61.25, "top1_high": 70.0}, "top1", 1), ends({"top1_low": None, "top1_high": None}, "top1", 1)
    (' [61.2, 70.0]', '')
    """
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if is_missing(low) or is_missing(high):
        return ""
    sign = "+" if signed else ""
    return f" [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def is_missing(value: float | None) -> bool:
    """Tell whether a number is missing: null, or not a number."""
    return value is None or math.isnan(value)
