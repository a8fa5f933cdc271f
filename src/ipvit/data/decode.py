"""From the bytes of an image file to pixels, and from pixels to a network's input square.

JPEG files go through torchvision's decoder and tensor resize (about twice as fast as Pillow, at most two grey levels
away); everything else, and everything with ``decoder="pil"``, goes through Pillow. Orientation tags are ignored, as by
torchvision's ``ImageFolder`` and timm, so that published numbers are met.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Generator, Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ipvit.core.preprocessing import View
from ipvit.data.dataset import Decoder, UnreadableImageError
from ipvit.data.depth import as_eight_bits, is_deep
from ipvit.errors import printable

try:
    from torchvision.io import decode_jpeg
except ImportError:  # announced to leave torchvision; Pillow reads everything
    decode_jpeg = None

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused as decompression bombs, as by Pillow: decoded they fill half a gigabyte."""

MOST_RESIZED = 2**26
"""Pixels up to which a picture is resized as a whole; of what would become larger, only the middle that is used."""

_SUPPORT = 8  # pixels beside the middle that interpolation may look at, of the larger of source and result

_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What decoders raise on damaged bytes."""

_MODES = {
    "bicubic": (F.InterpolationMode.BICUBIC, Image.Resampling.BICUBIC),
    "bilinear": (F.InterpolationMode.BILINEAR, Image.Resampling.BILINEAR),
    "nearest": (F.InterpolationMode.NEAREST_EXACT, Image.Resampling.NEAREST),  # pixel centres, as Pillow
}


@contextlib.contextmanager
def warnings_name(image: str) -> Generator[None]:
    """Put the name of an image before what Pillow, or another decoder, warns of: by itself it names no file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", append=True)  # the same of another image is told too
        yield
    for one in caught:
        warnings.warn_explicit(f"{printable(image)}: {one.message}", one.category, one.filename, one.lineno)


def decode(data: bytes, decoder: Decoder = "fast") -> Tensor:
    """Decode one image file to ``(3, H, W)`` uint8.

    Grey, palette, CMYK and transparent images become RGB as Pillow converts them; of an animation the first frame
    counts. Of pictures of more than 8 bits see :mod:`ipvit.data.depth`.

    Raises:
        UnreadableImageError: empty, truncated, too large, not an image, or on a scale that the file does not state.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except _BROKEN as error:
        what = f"not an image Pillow knows ({type(error).__name__})"
        raise UnreadableImageError(_instead_of_a_picture(data) or what) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise UnreadableImageError(f"{picture.width} x {picture.height} is more than {MAX_PIXELS:,} pixels")
    if decoder == "fast" and decode_jpeg is not None and picture.format == "JPEG" and picture.mode in ("RGB", "L"):
        try:
            pixels = cast(Tensor, decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)))
            return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels
        except RuntimeError:
            pass  # Pillow reads some files that libjpeg's strict mode refuses, and names what is wrong with the others
    return _decode_with_pillow(picture)


def _instead_of_a_picture(data: bytes) -> str:
    """Say what lies under the name of a picture where a download or a checkout left it; empty for anything else."""
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture: fetch it with 'git lfs pull'"
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page saved under that name, not a picture"
    return ""


def apply_view(pixels: Tensor, view: View, decoder: Decoder = "fast") -> Tensor:
    """Resize and centre-crop ``(C, H, W)`` uint8 to ``(C, *view.size)`` uint8, as timm's evaluation transform does."""
    size = _target(pixels.shape[-2:], view)
    if size[0] * size[1] > MOST_RESIZED:
        pixels, size = _middle(pixels, size, view)
    resized = _resize(pixels, size, view.interpolation, decoder)
    if tuple(resized.shape[-2:]) == tuple(view.size):
        return resized
    if view.crop_mode == "center_floor":
        height, width = (max(side, crop) for side, crop in zip(resized.shape[-2:], view.size, strict=True))
        resized = F.center_crop(resized, [height, width])  # enlarged with black where it is too small
        return F.crop(resized, (height - view.size[0]) // 2, (width - view.size[1]) // 2, *view.size)
    return F.center_crop(resized, list(view.size))


def check_proportions(mask: Sequence[int], picture: Sequence[int]) -> None:
    """Refuse a mask that would be stretched over its picture: of another picture, or of one that was turned.

    Args:
        mask: height and width.
        picture: the same.

    Raises:
        UnreadableImageError: the proportions differ by more than rounding.
    """
    (tall, wide), (height, width) = mask, picture
    if abs(tall * width - wide * height) > tall + wide + height + width:  # a pixel of each side
        raise UnreadableImageError(
            f"its mask is {wide}x{tall} and the picture {width}x{height}, of other proportions: is it of this picture, "
            "turned as its pixels lie?"
        )


def _middle(pixels: Tensor, size: tuple[int, int], view: View) -> tuple[Tensor, tuple[int, int]]:
    """Return the middle of a long and thin picture that a crop of the resized one shows, and what to resize it to."""
    window, result = [], []
    for side, resized, crop in zip(pixels.shape[-2:], size, view.size, strict=True):
        scale = resized / side
        wanted = math.ceil(crop / scale) + 2 * math.ceil(_SUPPORT * max(1.0, 1 / scale))
        taken = min(side, wanted + (side - wanted) % 2)  # as much goes on either side: the centre stays the centre
        window.append(taken)
        result.append(resized if taken == side else max(crop, round(taken * scale)))
    return F.center_crop(pixels, window), (result[0], result[1])


def _target(shape: tuple[int, ...], view: View) -> tuple[int, int]:
    height, width = shape
    tall, wide = view.resize
    if view.crop_mode == "squash":
        return tall, wide
    if tall == wide:  # the shortest side becomes ``tall``; the other is rounded down, as torchvision does
        if height <= width:
            return tall, int(tall * width / height)
        return int(tall * height / width), tall
    scale = max(tall / height, wide / width)
    return max(view.size[0], round(height * scale)), max(view.size[1], round(width * scale))


def _resize(pixels: Tensor, size: tuple[int, int], interpolation: str, decoder: Decoder) -> Tensor:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    tensor_mode, pillow_mode = _MODES[interpolation]
    if decoder == "pil" and pixels.shape[0] == 3:
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        return _to_tensor(picture.resize((size[1], size[0]), pillow_mode))
    return F.resize(pixels, list(size), interpolation=tensor_mode, antialias=interpolation != "nearest")


def _decode_with_pillow(picture: Image.Image) -> Tensor:
    try:
        return _to_tensor((as_eight_bits(picture) if is_deep(picture) else picture).convert("RGB"))
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except _BROKEN as error:
        raise UnreadableImageError(printable(str(error)) or type(error).__name__) from None


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


Image.MAX_IMAGE_PIXELS = MAX_PIXELS
