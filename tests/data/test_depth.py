"""Pictures of more than 8 bits are scaled by what the file says, or refused with the range that was seen."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from ipvit.data.dataset import UnreadableImageError
from ipvit.data.decode import decode

SIDE = 16
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
"""Levels from black to white."""


def tiff(values: np.ndarray, **tags: float) -> bytes:
    file, stated = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        number = {"low": 340, "high": 341, "maximum": 281}[name]
        stated[number] = value
        stated.tagtype[number] = 12 if number > 300 else 3
    Image.fromarray(values).save(file, "TIFF", tiffinfo=stated)
    return file.getvalue()


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    """Write a grey ``(H, W)`` or coloured ``(H, W, 3)`` PNG of 16 bits by hand."""
    colour = values.ndim == 3

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if colour else 0, 0, 0, 0)
    bits = b"" if significant is None else chunk(b"sBIT", bytes([significant]) * (3 if colour else 1))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        png((RAMP * 65535).astype(np.uint16)),
        png((RAMP * 4095).astype(np.uint16), significant=12),
        png(((RAMP * 4095).astype(np.uint16) << 4) | 15, significant=12),
        tiff((RAMP * 65535).astype(np.uint16)),
        tiff((RAMP * 4095).astype(np.uint16), maximum=4095),
        tiff(RAMP.astype(np.float32)),
        tiff((300 + RAMP * 50).astype(np.float32), low=300.0, high=350.0),
        tiff((RAMP * 1000).astype(np.int32), low=0.0, high=1000.0),
        b"P5 %d %d 4095\n" % (SIDE, SIDE) + (RAMP * 4095).astype(">u2").tobytes(),
    ],
    ids=["16 bits", "12 low bits", "12 high bits", "TIFF", "TIFF 12", "float", "degrees", "int32", "PGM"],
)
def test_a_stated_scale_gives_the_same_grey_levels(data: bytes):
    found = decode(data)
    assert (found.to(torch.int) - torch.from_numpy(RAMP * 255)).abs().max() <= 1.01
    assert found.shape == (3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png((RAMP * 4095).astype(np.uint16)), "16-bit values from 0 to 4095"),
        (tiff((RAMP * 1023).astype(np.uint16)), "16-bit values from 0 to 1023"),
        (tiff((RAMP * 255).astype(np.float32)), "float values from 0 to 255"),
        (tiff((RAMP - 0.5).astype(np.float32)), "float values from -0.5 to 0.5"),
        (tiff((RAMP * 70000).astype(np.int32)), "32-bit values from 0 to 70000"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)), "NaN"),
        (png(np.repeat((RAMP * 4095).astype(np.uint16)[..., None], 3, axis=2)), "16-bit colours"),
    ],
)
def test_a_scale_that_is_not_stated_is_refused_with_the_range(data: bytes, words: str):
    with pytest.raises(UnreadableImageError, match=words):
        decode(data)


def coloured(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)


def test_dark_colours_whose_range_is_stated_stay_dark():
    found = decode(png(coloured(RAMP * 9000), significant=16))
    assert (found.to(torch.int) - torch.from_numpy(RAMP * 35)).abs().max() <= 1.01


@pytest.mark.parametrize("significant", [10, 12, 14, 15])
def test_colours_in_the_lower_bits_are_refused_and_those_in_the_upper_ones_shown(significant: int):
    low = coloured(RAMP * (2**significant - 1))
    with pytest.raises(UnreadableImageError, match="16-bit colours"):
        decode(png(low, significant))
    found = decode(png(low << (16 - significant), significant))
    assert (found.to(torch.int) - torch.from_numpy(RAMP * 255)).abs().max() <= 1.01


def test_a_range_of_colours_that_would_not_be_shown_is_refused():
    from ipvit.data.depth import _check_colours

    _check_colours(12, None, (0, 65535))
    with pytest.raises(UnreadableImageError, match="between 0 and 32767"):
        _check_colours(127, None, (0, 32767))


def test_a_black_picture_of_any_depth_is_black():
    zeros = np.zeros((4, 4))
    for data in (png(zeros.astype(np.uint16)), tiff(zeros.astype(np.float32)), tiff(zeros.astype(np.int32))):
        assert decode(data).max() == 0


STRAY = np.zeros((SIDE, SIDE), bool)
STRAY[3, 3] = True
TWELVE = (RAMP * 4095).astype(np.uint16)


def netpbm(kind: str, values: np.ndarray, largest: int) -> bytes:
    """Write ``P5`` or ``P6`` (raw), ``P2`` or ``P3`` (plain)."""
    head = f"{kind} {SIDE} {SIDE} {largest}\n".encode()
    if kind in ("P2", "P3"):
        return head + " ".join(map(str, values.reshape(-1).tolist())).encode()
    return head + values.astype(">u2").tobytes()


def jpeg_2000(values: np.ndarray, suffix: str = "jp2") -> bytes:
    """Write 16 bits losslessly."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG2000", irreversible=False, no_jp2=suffix == "j2k")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        netpbm("P5", TWELVE, 65535),
        netpbm("P2", TWELVE, 65535),
        netpbm("P6", coloured(TWELVE), 65535),
        netpbm("P3", coloured(TWELVE), 65535),
        jpeg_2000(TWELVE),
        jpeg_2000(TWELVE, "j2k"),
        png(np.where(STRAY, 65535, TWELVE).astype(np.uint16)),
        png(np.where(STRAY, 65535, TWELVE).astype(np.uint16), significant=12),
        png(coloured(np.where(STRAY, 65535, TWELVE))),
        tiff(np.where(STRAY, 65535, TWELVE).astype(np.uint16)),
        tiff(np.where(STRAY, 1, RAMP * 0.06).astype(np.float32)),
        netpbm("P5", np.where(STRAY, 65535, TWELVE), 65535),
        jpeg_2000(np.where(STRAY, 65535, TWELVE).astype(np.uint16)),
    ],
    ids=[
        "PGM",
        "plain PGM",
        "PPM",
        "plain PPM",
        "JP2",
        "J2K",
        "stray PNG",
        "stray PNG of 12 bits",
        "stray colours",
        "stray TIFF",
        "stray float",
        "stray PGM",
        "stray JP2",
    ],
)
def test_twelve_bits_in_sixteen_are_refused_whatever_the_file_and_one_bright_pixel(data: bytes):
    with pytest.raises(UnreadableImageError, match="which is white|10 to 14 bits|stray pixels"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        netpbm("P5", (RAMP * 65535).astype(np.uint16), 65535),
        netpbm("P6", coloured(RAMP * 65535), 65535),
        netpbm("P6", coloured(TWELVE), 4095),
        netpbm("P3", coloured(TWELVE), 4095),
        jpeg_2000((RAMP * 65535).astype(np.uint16)),
    ],
    ids=["PGM", "PPM", "PPM of 12 bits", "plain PPM of 12 bits", "JP2"],
)
def test_what_fills_its_range_or_states_it_is_shown(data: bytes):
    assert (decode(data).to(torch.int) - torch.from_numpy(RAMP * 255)).abs().max() <= 1.01


def test_dark_pictures_whose_file_says_so_stay_dark():
    dark = (RAMP * 600).astype(np.uint16)
    assert 30 <= decode(netpbm("P5", dark, 4095)).max() <= 40
    assert 30 <= decode(netpbm("P6", coloured(dark), 4095)).max() <= 40


def test_twelve_packed_bits_say_what_white_is():
    rows = TWELVE[:, 0::2].astype(np.uint32) << 12 | TWELVE[:, 1::2]
    packed = b"".join(int(pair).to_bytes(3, "big") for pair in rows.reshape(-1))
    tags = [(256, 3, SIDE), (257, 3, SIDE), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 3, SIDE), (279, 4, len(packed))]
    start = 8 + len(packed)
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, value in tags
    )
    data = b"II*\0" + struct.pack("<I", start) + packed + directory + b"\0" * 4
    assert (decode(data).to(torch.int) - torch.from_numpy(RAMP * 255)).abs().max() <= 1.01


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_signed_bytes_are_refused(mode: str):
    file, tags = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 2 if mode == "L" else (2, 2, 2)
    tags.tagtype[339] = 3
    Image.new(mode, (4, 4), 3).save(file, "TIFF", tiffinfo=tags)
    with pytest.raises(UnreadableImageError, match="have a sign|not an image"):
        decode(file.getvalue())
