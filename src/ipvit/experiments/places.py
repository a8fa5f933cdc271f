"""Places of a black canvas that an image is shrunk into, of experiments that compare them with the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from ipvit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.models.model import Model
    from ipvit.perturb.choices import Corner

WHOLE = "whole image"
"""The place of an image that is not shrunk."""

Scale = Annotated[float, Field(gt=0, lt=1)]
"""Side of the shrunk image over the canvas's."""

PAPER_SCALE = 128 / 224
"""The paper's: 128 of 224 pixels (appendix F)."""


def check_scale(experiment: str, scale: float, model: Model) -> None:
    """Check that a pixel or more is left of the image on the model's input.

    Raises:
        InputError: nothing is left.
    """
    if min(_shrunk(model.image_size, scale)) < 1:
        raise InputError(f"{experiment}: a scale of {scale} leaves nothing of {model.name}'s input")


def at_place(images: Tensor, place: str, scale: float) -> Tensor:
    """Return images ``(B, C, H, W)`` shrunk into a corner of a black canvas, or as they are for :data:`WHOLE`."""
    from ipvit.perturb.place import shrink_into

    if place == WHOLE:
        return images
    height, width = images.shape[-2:]
    return shrink_into(images, _shrunk((height, width), scale), cast("Corner", place))


def _shrunk(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return round(size[0] * scale), round(size[1] * scale)
