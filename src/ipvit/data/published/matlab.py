"""Numbers, texts, cells and structures from MATLAB's version-5 files; nothing in a file is executed.

Two of the published sets state their labels in such files. The format is MathWorks' "MAT-File Format", level 5.
``scipy.io.loadmat`` reads them too, but some damaged files crash the process there (scipy 1.17: a few wrong bytes, or
cells nested thousands deep), and a crash cannot be told in one line.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ipvit.errors import InputError

_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCTURE, _TEXT, _FIRST_NUMBER = 1, 2, 4, 6
_MOST = 256 * 2**20  # bytes that a compressed variable may unpack to


def read_matlab(path: Path) -> dict[str, Any]:
    """Return the variables of a file: arrays, texts, lists (cells) and lists of dictionaries (structures).

    Raises:
        InputError: the file cannot be read or is of another format.
    """
    try:
        data = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}[data[126:128]]
        return dict(_variables(data[128:], order))
    except (OSError, KeyError, ValueError, struct.error, zlib.error, IndexError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not a MATLAB file of version 5 that can be read: {error}") from None


def _variables(data: bytes, order: str) -> list[tuple[str, Any]]:
    found = []
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            found += _variables(zlib.decompressobj().decompress(content, _MOST), order)
        elif kind == _MATRIX:
            found.append(_matrix(content, order))
    return found


def _elements(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """Cut a run of elements, each a tag (type and length) and its content, padded to eight bytes."""
    found, place = [], 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # up to four bytes of content sit in the tag itself
            kind, length = kind & 0xFFFF, kind >> 16
            found.append((kind, data[place + 4 : place + 4 + length]))
            place += 8
            continue
        if place + 8 + length > len(data):
            raise ValueError("it is cut short")
        found.append((kind, data[place + 8 : place + 8 + length]))
        place += 8 + length + (0 if kind == _COMPRESSED else -length % 8)
    return found


def _matrix(content: bytes, order: str) -> tuple[str, Any]:
    parts = _elements(content, order)
    if not parts:
        return "", np.zeros(0)
    category = struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF
    shape = np.frombuffer(parts[1][1], f"{order}i4")
    name = parts[2][1].decode("ascii")
    rest = parts[3:]
    if category == _CELL:
        return name, [_matrix(cell, order)[1] for _, cell in rest]
    if category == _STRUCTURE:
        return name, _structures(rest, order)
    if category == _TEXT:
        kind, letters = rest[0]
        return name, letters.decode({17: "utf-16-le" if order == "<" else "utf-16-be"}.get(kind, "utf-8"))
    if category >= _FIRST_NUMBER and rest:
        kind, numbers = rest[0]
        return name, np.frombuffer(numbers, order + _NUMBERS[kind]).reshape(shape, order="F")
    return name, None


def _structures(parts: list[tuple[int, bytes]], order: str) -> list[dict[str, Any]]:
    (width,) = struct.unpack_from(f"{order}i", parts[0][1])
    letters = parts[1][1]
    fields = [letters[at : at + width].split(b"\0")[0].decode("ascii") for at in range(0, len(letters), width)]
    values = [_matrix(content, order)[1] for _, content in parts[2:]]
    return [dict(zip(fields, values[at : at + len(fields)], strict=True)) for at in range(0, len(values), len(fields))]
