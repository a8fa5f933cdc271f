"""Pictures of more than 8 bits, or of numbers that are no grey levels: scaled by what the file says, or refused.

A 16-bit file may hold 10, 12 or 14 bits, a float file degrees or counts. Where a file does not say which is white,
a guess would make pictures black or grey without a word. A picture is never stretched to its own darkest and brightest
value: two of them would not be on one scale.
"""

from __future__ import annotations

import struct
from typing import Any, cast

import numpy as np
from PIL import Image

from ipvit.data.dataset import UnreadableImageError

_FULL = 65_535
_DARK = 0.25
"""Values that stay below this share of a range that is not stated have probably another one: 14 bits of 16."""

_STRAY = 1000
"""One pixel in so many, and one in any case, may be brighter: a hot pixel of a camera says nothing of the range."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_RANGES = ((340, 341), (280, 281))
"""TIFF's tags for the smallest and the largest value: of samples of any type, and of unsigned ones."""

_WHITE_IS_ZERO = 0
_SIGNED = 2
_REMEDY = "save it as 8 bits, or with its range"
_NOT_STATED = f"and the file does not say which is white: {_REMEDY}"


def is_deep(picture: Image.Image) -> bool:
    """Tell whether an opened picture has samples of other kinds than plain bytes, whatever mode Pillow reads it in."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return True
    if picture.format == "TIFF":
        return max(_numbers(picture, _BITS) or [8]) > 8 or _is_signed(picture)
    if picture.format == "PNG":
        return _png_depth(picture) > 8
    if picture.format == "PPM":
        return _largest_of_ppm(picture) > 255
    return picture.format == "JPEG2000" and (max(_bits_of_jpeg_2000(picture)) > 8 or _is_signed(picture))


def as_eight_bits(picture: Image.Image) -> Image.Image:
    """Return a deep picture as one of 8 bits that shows the same.

    Raises:
        UnreadableImageError: the file does not say which values its numbers lie between.
        OSError: it cannot be decoded; so do Pillow's other errors.
    """
    significant = _significant_bits(picture)
    stated = _stated_range(picture)
    known = (significant or 0) > 0 or _says_white(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if picture.mode == "F" and not np.isfinite(values).all():
            raise UnreadableImageError("some of its values are NaN or infinite")
        low, high = stated or _range_of(picture, values, significant, known)
        if high == _FULL and low == 0 and values.dtype.kind in "iu":
            levels = values.astype(np.int64).clip(0, _FULL) >> 8  # as Pillow narrows 16 bits
        else:
            scaled = (values.astype(np.float64) - low) / (high - low)
            levels = (scaled.clip(0, 1) * 255).round()
        levels = levels.astype(np.uint8)
        if picture.format == "TIFF" and _numbers(picture, _PHOTOMETRIC) == [_WHITE_IS_ZERO]:
            levels = 255 - levels
        return Image.fromarray(levels)
    if picture.format in ("TIFF", "JPEG2000") and _is_signed(picture):
        raise UnreadableImageError(f"its 8-bit values have a sign, {_NOT_STATED}")
    colours = picture.convert("RGB")  # Pillow keeps the upper 8 of 16 bits
    _check_colours(int(_brightest(np.asarray(colours).max(axis=2))), significant, stated, known)
    return colours


def _brightest(values: np.ndarray) -> float:
    """Return the largest value, but for stray pixels."""
    flat = values.reshape(-1)
    place = flat.size - 1 - max(1, flat.size // _STRAY)
    return float(np.partition(flat, place)[place] if place >= 0 else flat.max(initial=0))


def _check_colours(
    brightest: int, significant: int | None, stated: tuple[float, float] | None, known: bool = False
) -> None:
    """Refuse colours that the upper 8 of 16 bits do not show, given the largest value of these 8."""
    if stated is not None and stated != (0, _FULL):
        raise UnreadableImageError(
            f"its 16-bit colours lie between {stated[0]:g} and {stated[1]:g} as the file says, which is read of grey "
            "pictures only: save it as 8 bits"
        )
    if stated is not None or not brightest:
        return
    least = 0 if known else 256 * _DARK
    if significant is not None:
        least = 2 ** (significant - 8) if significant < 16 else 0
    if brightest < least:
        raise UnreadableImageError(
            f"its 16-bit colours reach {100 * (brightest / 255):.0f} % of their range, as where 10 to 14 bits are "
            "stored in 16: " + _REMEDY
        )


def _range_of(picture: Image.Image, values: np.ndarray, significant: int | None, known: bool) -> tuple[float, float]:
    """Return the values of black and white by the kind of file, or refuse."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    seen = f"{_kind(picture)} values from {low:g} to {high:g}"
    if significant is not None and significant < 16:
        if high < 2**significant:
            return 0, 2**significant - 1  # PNG: that many bits count, and they were not moved to the upper end
        if 0 < _brightest(values) < 2**significant:
            raise UnreadableImageError(
                f"{seen}, of which {significant} bits count and all but stray pixels are in the lower ones: {_REMEDY}"
            )
    full = 1 if picture.mode == "F" else _FULL
    sixteen = picture.mode.startswith("I;16") or picture.format != "TIFF"
    if (picture.mode != "F" and not sixteen) or low < 0 or high > full:
        if low == high == 0:
            return 0, 1
        raise UnreadableImageError(f"{seen}, {_NOT_STATED}")
    brightest = _brightest(values)
    if 0 < brightest < _DARK * full and not known:
        but = "" if high < _DARK * full else f", all but stray pixels up to {brightest:g}"
        raise UnreadableImageError(f"{seen} only{but}, {_NOT_STATED}")
    return 0, full


def _says_white(picture: Image.Image) -> bool:
    """Tell whether the file names a largest value that is not just what 16 bits hold: then Pillow scaled by it."""
    if picture.format == "PPM":
        return picture.mode != "F" and _largest_of_ppm(picture) != _FULL
    return picture.format == "JPEG2000" and max(_bits_of_jpeg_2000(picture)) < 16


def _largest_of_ppm(picture: Image.Image) -> int:
    """Return the largest value that a PGM or PPM file states: PAM's maxval."""
    arguments = cast(Any, picture).tile[0].args
    if isinstance(arguments, str):
        return _FULL if arguments.startswith("I;16") else 255
    return next((part for part in arguments if isinstance(part, int) and part > 0), 255)


def _is_signed(picture: Image.Image) -> bool:
    if picture.format == "JPEG2000":
        return any(bits < 0 for bits in _components_of_jpeg_2000(picture))
    return _SIGNED in _numbers(picture, _SAMPLE_FORMAT)


def _bits_of_jpeg_2000(picture: Image.Image) -> list[int]:
    return [abs(bits) for bits in _components_of_jpeg_2000(picture)] or [8]


def _components_of_jpeg_2000(picture: Image.Image) -> list[int]:
    """Return the bits of each component as the codestream's marker SIZ states them, below 0 for signed ones."""
    file = cast(Any, picture).fp
    if file is None:
        return []
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 42:
        return []
    (count,) = struct.unpack_from(">H", data, start + 40)
    stated = data[start + 42 : start + 42 + 3 * count : 3]
    return [-((byte & 127) + 1) if byte & 128 else byte + 1 for byte in stated]


def _stated_range(picture: Image.Image) -> tuple[float, float] | None:
    """Return the smallest and largest value that a TIFF file states."""
    if picture.format != "TIFF":
        return None
    for least, most in _RANGES:
        top = _numbers(picture, most)
        bottom = _numbers(picture, least) or [0.0]
        if top and max(top) > min(bottom):
            return min(bottom), max(top)
    bits = max(_numbers(picture, _BITS) or [8])
    return (0, 2**bits - 1) if 8 < bits < 16 and picture.mode.startswith("I;16") else None


def _numbers(picture: Image.Image, tag: int) -> list[float]:
    """Return the values of a TIFF tag; none where it is missing or holds no numbers."""
    found = cast(Any, picture).tag_v2.get(tag)
    values = found if isinstance(found, tuple) else (found,)
    try:
        return [float(value) for value in values if value is not None]
    except (TypeError, ValueError, ZeroDivisionError):
        return []


def _kind(picture: Image.Image) -> str:
    names = {"F": "float", "I": "32-bit"}
    return names.get(picture.mode, "16-bit")


def _png_depth(picture: Image.Image) -> int:
    chunks = _png_chunks(picture)
    return chunks[b"IHDR"][8] if len(chunks.get(b"IHDR", b"")) > 8 else 8


def _significant_bits(picture: Image.Image) -> int | None:
    """Return how many bits of a sample PNG's chunk ``sBIT`` calls significant, or None."""
    stated = _png_chunks(picture).get(b"sBIT") if picture.format == "PNG" else None
    return max(stated[:3]) if stated else None


def _png_chunks(picture: Image.Image) -> dict[bytes, bytes]:
    """Return the first chunks of a PNG file up to its pixels; Pillow does not keep all of them."""
    file = cast(Any, picture).fp
    found: dict[bytes, bytes] = {}
    if file is None:
        return found
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", head)
            if name in (b"IDAT", b"IEND") or size > 2**20:
                break
            found[name] = file.read(size)
            file.seek(4, 1)
    finally:
        file.seek(place)
    return found
