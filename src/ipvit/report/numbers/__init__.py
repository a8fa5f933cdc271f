"""Every number of the paper that can be compared, and where its counterpart is found in our tables.

The numbers themselves are in ``paper_targets.json``; how far each may be off is written there (``tol``) or here, where
it follows from how the number is printed: half a unit of its last digit.
"""

from __future__ import annotations

import functools

from ipvit.report.numbers import occlusion, position, robustness, shape, tokens
from ipvit.report.numbers.quantity import Place, Quantity

__all__ = ["Place", "Quantity", "quantities"]


@functools.cache
def quantities() -> tuple[Quantity, ...]:
    """Return all of them, in the order of the paper."""
    rooms = (occlusion, shape, position, robustness, tokens)
    return tuple(quantity for room in rooms for quantity in room.quantities())
