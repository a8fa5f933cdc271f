"""Masks drawn on images (figure 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_OBJECT = (1.0, 1.0, 1.0)
_MASK = (0.90, 0.38, 0.05)  # the orange of the attention maps


def outlined(image: Tensor, objects: Tensor, mask: Tensor | None, smallest: int = 336) -> Tensor:
    """Return an image with the outline of its objects in white and, where there is one, a mask in orange.

    What the mask leaves out is darkened.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        objects: bool ``(H, W)``.
        mask: bool ``(H, W)``, or None.
        smallest: the picture is enlarged to at least this side, so that outlines stay thin.
    """
    factor = max(1, -(-smallest // min(image.shape[-2:])))
    large = image.repeat_interleave(factor, -2).repeat_interleave(factor, -1).clone()
    width = max(1, round(min(large.shape[-2:]) / 224))

    def enlarged(pixels: Tensor) -> Tensor:
        return pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)

    if mask is not None:
        inside = enlarged(mask)
        large = torch.where(inside, large, 0.35 * large)
        _paint(large, _edge(inside, 2 * width), _MASK)
    shape = enlarged(objects)
    _paint(large, _edge(~shape, 1), (0.0, 0.0, 0.0))  # so that white shows on white
    _paint(large, _edge(shape, width), _OBJECT)
    return large


def _edge(mask: Tensor, width: int) -> Tensor:
    """Return the pixels of a mask that are at most ``width`` from its outside; the image's border is no edge."""
    outside = (~mask).float()[None, None]
    near = F.max_pool2d(outside, 2 * width + 1, stride=1, padding=width)[0, 0] > 0
    return mask & near


def _paint(image: Tensor, where: Tensor, colour: tuple[float, float, float]) -> None:
    for channel, value in zip(image, colour, strict=True):
        channel[where] = value
