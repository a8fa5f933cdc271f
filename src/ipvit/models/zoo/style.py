"""The networks of AdaIN (Huang & Belongie 2017): VGG-19 up to relu4_1, and its mirror image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_ENCODER_BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512,))
"""Channels of VGG-19's convolutions up to relu4_1; blocks are divided by pooling."""

_DECODER_BLOCKS = ((256,), (256, 256, 256, 128), (128, 64), (64, 3))
"""The way back; blocks are divided by doubling height and width."""


def make_encoder() -> nn.Sequential:
    """Return VGG-19 up to relu4_1: a 1x1 convolution that normalises colours, reflection padding throughout.

    Images ``(B, 3, H, W)`` in [0, 1] become features ``(B, 512, H / 8, W / 8)``, rounded up.
    """
    return nn.Sequential(nn.Conv2d(3, 3, 1), *_blocks(3, _ENCODER_BLOCKS, lambda: nn.MaxPool2d(2, ceil_mode=True)))


def make_decoder() -> nn.Sequential:
    """Return the mirror image of :func:`make_encoder`, from features to images; the last layer has no ReLU."""
    return nn.Sequential(*list(_blocks(512, _DECODER_BLOCKS, lambda: nn.Upsample(scale_factor=2)))[:-1])


def _blocks(channels: int, blocks: tuple[tuple[int, ...], ...], between: Any) -> Iterator[nn.Module]:
    for number, widths in enumerate(blocks):
        if number:
            yield between()
        for width in widths:
            yield from (nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU())
            channels = width
