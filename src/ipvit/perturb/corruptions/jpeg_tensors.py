"""What JPEG does to whole batches, as tensors: a GPU makes it where the images are.

Between writing and reading a file nothing is lost but by rounding: of colours, of the mean colour of four pixels, and
of the coefficients of 8 x 8 pixels. libjpeg does all of it in integers, so its bytes can be computed without a file:
those of libjpeg-turbo, which Pillow brings, with its defaults (4:2:0, ``islow``, "fancy" upsampling). All numbers here
are integers below 2^53, in float64, which every GPU of NVIDIA adds and multiplies without error, in whatever order.

Sources: ITU-T T.81 (JPEG), annex K for the tables; Loeffler, Ligtenberg & Moschytz 1989 for the transform, and
libjpeg's ``jfdctint.c`` and ``jidctint.c`` for where it rounds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.tensors import from_numpy

_SIDE = 8
_FRACTION = 13
"""Bits of the transform's constants behind the point."""
_KEPT = 2
"""Bits behind the point that are kept between its two passes."""

_LUMINANCE = """
16 11 10 16  24  40  51  61    12 12 14 19  26  58  60  55    14 13 16 24  40  57  69  56    14 17 22 29  51  87  80  62
18 22 37 56  68 109 103  77    24 35 55 64  81 104 113  92    49 64 78 87 103 121 120 101    72 92 95 98 112 100 103  99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99    18 21 26 66 99 99 99 99    24 26 56 99 99 99 99 99    47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99    99 99 99 99 99 99 99 99    99 99 99 99 99 99 99 99    99 99 99 99 99 99 99 99
"""


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Return images as they come out of a JPEG file.

    Args:
        images: ``(B, 3, H, W)`` uint8, RGB, on any device with float64.
        quality: 1 to 100.

    Returns:
        ``(B, 3, H, W)`` uint8, the bytes that Pillow writes and reads.
    """
    height, width = images.shape[-2:]
    brightness, colour = _planes(images)
    bright = _rounded(brightness, _LUMINANCE, quality)[..., :height, :width]
    half = (-(-height // 2), -(-width // 2))
    colours = _upsampled(_rounded(colour, _CHROMINANCE, quality)[..., : half[0], : half[1]])[..., :height, :width]
    return _to_rgb(bright, colours)


def _constants(values: np.ndarray, device: torch.device) -> Tensor:
    return from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device, non_blocking=True)


@lru_cache(maxsize=32)
def _constant(name: str, device: torch.device) -> Tensor:
    """Return one of the constants on a device; those of a colour model have 16 bits behind the point."""
    made = {
        "to colours": lambda: np.array(
            [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]],
        ),
        "colours' offset": lambda: np.array([32768, *[(128 << 16) + 32767] * 2])[:, None],
        "from colours": lambda: np.array([[0, 91881], [-22554, -46802], [116130, 0]]),
        "forward": _forward,
        "backward": _backward,
    }
    return _constants(made[name](), device)


@lru_cache(maxsize=32)
def _table(name: str, quality: int, device: torch.device) -> Tensor:
    """Return the quantisation table of a quality, ``(8, 1, 8)``, over blocks."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = np.array(name.split(), dtype=np.int64).reshape(_SIDE, 1, _SIDE)
    return _constants(np.clip((base * scale + 50) // 100, 1, 255), device)


def _planes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return brightness ``(B, 1, H', W')`` and the two colours ``(B, 2, H'/2, W'/2)``, whole blocks of each.

    As in libjpeg, what lies beyond the edge repeats it: before colours are averaged, but for whole rows of blocks.
    """
    batch, _, height, width = images.shape
    padded = _repeat_edge(images.to(torch.float64), height + height % 2, -(-width // 16) * 16)
    height, width = padded.shape[-2:]
    colour = _constant("to colours", images.device) @ padded.reshape(batch, 3, -1)
    colour = ((colour + _constant("colours' offset", images.device)) * 2.0**-16).floor_()
    colour = colour.view(batch, 3, height, width)
    rounding = torch.arange(width // 2, device=images.device) % 2 + 1  # 1 and 2 in turn
    fours = colour[:, 1:].reshape(batch, 2, height // 2, 2, width // 2, 2).sum(dim=(3, 5))
    fours = ((fours + rounding) * 0.25).floor_()
    return (
        _repeat_edge(colour[:, :1], -(-height // _SIDE) * _SIDE, width),
        _repeat_edge(fours, -(-height // 16) * _SIDE, width // 2),
    )


def _repeat_edge(planes: Tensor, height: int, width: int) -> Tensor:
    down, right = height - planes.shape[-2], width - planes.shape[-1]
    return F.pad(planes, (0, right, 0, down), mode="replicate") if down or right else planes


def _rounded(planes: Tensor, name: str, quality: int) -> Tensor:
    """Return planes whose blocks were transformed, rounded to multiples of a table's steps, and transformed back."""
    table = _table(name, quality, planes.device)
    forward = _constant("forward", planes.device)
    found = _across(planes - 128, forward, _FRACTION - _KEPT)
    found = _down(found, forward, _FRACTION + _KEPT)
    *outer, height, width = found.shape
    blocks = found.reshape(*outer, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    steps = table * 8  # the transform's scale
    magnitude = ((blocks.abs() + (steps * 0.5).floor()) / steps).floor_()
    found = (magnitude.copysign_(blocks) * table).view(*outer, height, width)
    backward = _constant("backward", planes.device)
    found = _down(found, backward, _FRACTION - _KEPT)
    return _across(found, backward, _FRACTION + _KEPT + 3).add_(128).clamp_(0, 255)


def _across(planes: Tensor, matrix: Tensor, bits: int) -> Tensor:
    blocks = planes.reshape(*planes.shape[:-1], -1, _SIDE) @ matrix.T
    return _descaled(blocks, bits).flatten(-2)


def _down(planes: Tensor, matrix: Tensor, bits: int) -> Tensor:
    *outer, width = planes.shape
    blocks = matrix @ planes.reshape(*outer[:-1], -1, _SIDE, width)
    return _descaled(blocks, bits).flatten(2, 3)


def _descaled(values: Tensor, bits: int) -> Tensor:
    return values.add_(2.0 ** (bits - 1)).mul_(2.0**-bits).floor_()


def _odd_part(first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray) -> list[np.ndarray]:
    """Return the rotations that both directions of the transform have in common."""
    z1, z2, z3, z4 = first + fourth, second + third, first + third, second + fourth
    z5 = (z3 + z4) * 9633
    z1, z2, z3, z4 = z1 * -7373, z2 * -20995, z3 * -16069 + z5, z4 * -3196 + z5
    return [first * 2446 + z1 + z3, second * 16819 + z2 + z4, third * 25172 + z2 + z3, fourth * 12299 + z1 + z4]


@lru_cache(maxsize=1)
def _forward() -> np.ndarray:
    """Return the forward transform of eight values as a matrix of integers."""
    d = np.eye(_SIDE, dtype=np.int64)
    sums, differences = d[:4] + d[7:3:-1], d[:4] - d[7:3:-1]
    even0, even3 = sums[0] + sums[3], sums[0] - sums[3]
    even1, even2 = sums[1] + sums[2], sums[1] - sums[2]
    z1 = (even2 + even3) * 4433
    seventh, fifth, third, first = _odd_part(*differences[::-1])
    return np.stack(
        [
            (even0 + even1) << _FRACTION,
            first,
            z1 + even3 * 6270,
            third,
            (even0 - even1) << _FRACTION,
            fifth,
            z1 + even2 * -15137,
            seventh,
        ]
    )


@lru_cache(maxsize=1)
def _backward() -> np.ndarray:
    """Return the inverse transform of eight coefficients as a matrix of integers."""
    c = np.eye(_SIDE, dtype=np.int64)
    z1 = (c[2] + c[6]) * 4433
    low, high = z1 + c[6] * -15137, z1 + c[2] * 6270
    total, difference = (c[0] + c[4]) << _FRACTION, (c[0] - c[4]) << _FRACTION
    even = [total + high, difference + low, difference - low, total - high]
    odd = _odd_part(c[7], c[5], c[3], c[1])[::-1]
    ahead = [e + o for e, o in zip(even, odd, strict=True)]
    behind = [e - o for e, o in zip(even, odd, strict=True)]
    return np.stack(ahead + behind[::-1])


def _upsampled(colours: Tensor) -> Tensor:
    """Return colours at twice the size: a quarter of the neighbour's in either direction, in libjpeg's rounding."""
    height, width = colours.shape[-2:]
    if width <= 2:  # libjpeg's rule
        return colours.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    tall = F.pad(colours, (0, 0, 1, 1), mode="replicate")
    near = colours * 3
    rows = torch.stack([near + tall[:, :, :height], near + tall[:, :, 2:]], dim=3).flatten(2, 3)
    wide = F.pad(rows, (1, 1, 0, 0), mode="replicate")
    near = rows * 3
    columns = torch.stack([near + wide[..., :width] + 8, near + wide[..., 2:] + 7], dim=4).flatten(3, 4)
    return (columns * 2.0**-4).floor_()


def _to_rgb(brightness: Tensor, colours: Tensor) -> Tensor:
    moved = _constant("from colours", colours.device) @ (colours - 128).flatten(2)
    moved = ((moved + 2.0**15) * 2.0**-16).floor_()
    return (brightness + moved.view(-1, 3, *colours.shape[-2:])).clamp_(0, 255).to(torch.uint8)
