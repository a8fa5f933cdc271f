"""Images as bytes and as numbers in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def as_floats(images: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return uint8 images of any shape as float32 in [0, 1], on a device or where they are.

    >>> as_floats(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    if device is not None:
        images = images.to(device, non_blocking=True)
    values = images.to(torch.float32, copy=True)
    # by a number on the device: by one of the processor's a GPU multiplies with the reciprocal, and rounds otherwise
    return values.div_(torch.full((), 255.0, device=values.device))


def as_bytes(images: Tensor) -> Tensor:
    """Return images in [0, 1], of any shape, as uint8: rounded to the nearest of 256 levels, clipped beyond them.

    >>> as_bytes(torch.tensor([-0.5, 0.5, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
