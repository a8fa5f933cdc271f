"""What a network expects of its input: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

import dataclasses
import math

from ipvit.errors import InputError, shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
CROP_MODES = ("center", "center_floor", "squash")


@dataclasses.dataclass(frozen=True)
class View:
    """How a decoded picture becomes a network's input square: shortest side resized, centre cropped.

    Networks with the same view share one resized image, so a picture is decoded and resized once for all of them.

    Attributes:
        size: height and width of the crop, in pixels.
        crop_pct: the crop's share of the resized shortest side; 0.875 is "resize 256, crop 224".
        interpolation: ``bicubic`` or ``bilinear``, antialiased as Pillow's, or ``nearest``.
        crop_mode: ``center`` keeps the aspect ratio, ``squash`` resizes both sides to the full size first. Where an odd
            number of pixels is cut off, ``center`` rounds the place of the crop as torchvision does; ``center_floor``
            is the same rounded down, as in transformers.

    Raises:
        InputError: there is no such interpolation or crop mode, or a size or share that is none.
    """

    size: tuple[int, int]
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop mode", self.crop_mode, CROP_MODES),
        ):
            if value not in known:
                raise InputError(
                    f"pictures cannot be resized here with the {what} {value!r}; known: {', '.join(known)}"
                )
        if len(self.size) != 2 or min(self.size) < 1 or not 0 < self.crop_pct < math.inf:
            raise InputError(
                f"an input of {shown(self.size)} pixels with the crop {shown(self.crop_pct)} is none: give height and "
                "width, and a share above 0"
            )

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
