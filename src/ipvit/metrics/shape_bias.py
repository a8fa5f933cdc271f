"""Shape bias: whether decisions on cue-conflict images follow the shape or the texture (section 3.2, figure 6).

Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (2019).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ipvit.metrics.intervals import wilson

Names = Sequence[str] | Sequence[int] | NDArray[np.generic]


@dataclasses.dataclass(frozen=True)
class CueDecisions:
    """Counted decisions on cue-conflict images.

    Attributes:
        images: with a conflict of shape and texture.
        shape: decisions for the category of the shape.
        texture: decisions for the category of the texture.
    """

    images: int
    shape: int
    texture: int

    @property
    def neither(self) -> int:
        """Decisions for a third category, which the ratio leaves out."""
        return self.images - self.shape - self.texture

    @property
    def value(self) -> float:
        """``shape / (shape + texture)``; NaN without such a decision."""
        return self.shape / (self.shape + self.texture) if self.shape + self.texture else math.nan

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return Wilson's interval of the ratio over the decisions for shape or texture."""
        return wilson(self.shape, self.shape + self.texture, confidence)


def shape_bias(decisions: Names, shapes: Names, textures: Names) -> CueDecisions:
    """Count decisions, pooled over all images.

    Args:
        decisions: ``(N,)`` category decided for; anything that is no category (``na``, -1) counts as neither.
        shapes: ``(N,)`` category of each image's shape.
        textures: ``(N,)`` category of each image's texture; an image where it is the shape's shows no conflict and is
            left out.

    Example:
        >>> counted = shape_bias(["cat", "dog", "car", "cat"], ["cat"] * 4, ["dog", "dog", "dog", "cat"])
        >>> counted.shape, counted.texture, counted.neither, counted.value
        (1, 1, 1, 0.5)
    """
    decided, shape, texture = _columns(decisions, shapes, textures)
    conflict = shape != texture
    return CueDecisions(
        images=int(conflict.sum()),
        shape=int((conflict & (decided == shape)).sum()),
        texture=int((conflict & (decided == texture)).sum()),
    )


def shape_bias_by_category(decisions: Names, shapes: Names, textures: Names) -> dict[str, CueDecisions]:
    """Count decisions for each category of shapes, in sorted order; arguments as in :func:`shape_bias`."""
    decided, shape, texture = _columns(decisions, shapes, textures)
    rows = {name: shape == name for name in np.unique(shape)}
    return {str(name): shape_bias(decided[mine], shape[mine], texture[mine]) for name, mine in rows.items()}


def _columns(*columns: Names) -> list[NDArray[np.generic]]:
    arrays = [np.asarray(column) for column in columns]
    if any(array.ndim != 1 or len(array) != len(arrays[0]) for array in arrays):
        raise ValueError(f"three columns of equal length are needed, not {', '.join(str(a.shape) for a in arrays)}")
    return arrays
