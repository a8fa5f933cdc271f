"""What a network expects of its input: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

import dataclasses
import math

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class View:
    """How a decoded picture becomes a network's input square: shortest side resized, centre cropped.

    Networks with the same view share one resized image, so a picture is decoded and resized once for all of them.

    Attributes:
        size: height and width of the crop, in pixels.
        crop_pct: the crop's share of the resized shortest side; 0.875 is "resize 256, crop 224".
        interpolation: ``bicubic`` or ``bilinear``, antialiased as Pillow's, or ``nearest``.
        crop_mode: ``center`` keeps the aspect ratio, ``squash`` resizes both sides to the full size first.
    """

    size: tuple[int, int]
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    crop_mode: str = "center"

    @property
    def resize(self) -> tuple[int, int]:
        """Height and width that the crop is cut from, in pixels (rounded down, as timm does)."""
        return (math.floor(self.size[0] / self.crop_pct), math.floor(self.size[1] / self.crop_pct))


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """A view plus the normalisation that the model applies inside its ``forward``."""

    view: View
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
