"""How far an attack may move an image."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

Norm = Literal["linf", "l2", "l1"]
"""Of the difference between two images, over all pixels and channels: its largest value, its length, its sum."""

LEVELS = 255
"""An epsilon of ``n`` is ``n / 255`` of the pixel range: ``n`` grey levels of an 8-bit image."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How far an attack may move an image.

    Attributes:
        norm: of the difference to the original: ``linf``, ``l2`` or ``l1``.
        size: the most that the norm may be, with pixels in [0, 1].
    """

    norm: Norm
    size: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm) or not self.size >= 0:
            raise ValueError(f"a budget is one of {', '.join(get_args(Norm))} and a size from 0, not {self}")
