"""Shrink an image and place it on a black canvas (appendix F)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.choices import Corner


def shrink_into(images: Tensor, size: tuple[int, int], corner: Corner) -> Tensor:
    """Resize images to ``size`` (bilinear, antialiased) and paste them into a corner of a black canvas.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        size: height and width of the shrunk image in pixels, at most the canvas's.
        corner: where it goes.

    Returns:
        ``(B, C, H, W)`` in [0, 1].
    """
    height, width = images.shape[-2:]
    tall, wide = size
    if not (1 <= tall <= height and 1 <= wide <= width):
        raise ValueError(f"an image of {tall}x{wide} does not fit into a canvas of {height}x{width}")
    small = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    top = {"top": 0, "bottom": height - tall}.get(corner.split("-")[0], (height - tall) // 2)
    left = {"left": 0, "right": width - wide}.get(corner.split("-")[-1], (width - wide) // 2)
    canvas = torch.zeros_like(images)
    canvas[..., top : top + tall, left : left + wide] = small
    return canvas
