"""What is read of files to tell whether they are the same: samples of most, all of some, all of all on demand.

A data set's fingerprint is made from the names, sizes and labels of its files, and from these digests. It names its
scheme, so that a later one can stand beside it:

- ``samples-2:``: every byte of a file that is small or stored as it is (BMP, PPM, PGM, TIFF, PNG that is not packed);
  of every other one 1,024 bytes from the front, from each quarter and from the end;
- ``bytes-2:``: every byte of every file;
- no name: the first scheme, 1,024 bytes from the middle. It is computed beside the new one, to find what was measured
  under it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import io
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ipvit.core.text.texts import Texts
from ipvit.data.dataset import Dataset, fingerprint
from ipvit.data.known_files import GONE, One, Read, as_array, is_kept, read_all, remembered, states_of

SAMPLES, BYTES = "samples-2", "bytes-2"

SAMPLE = 1024
"""Bytes of one sample."""

SMALL = 8 * SAMPLE
"""Files up to this size are read as a whole."""

_AS_STORED = frozenset({".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
"""Formats that mostly are not packed: a changed pixel changes nothing but its own bytes."""

_TIFF = frozenset({".tif", ".tiff"})
_CHUNK = 2**20
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">IIBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by PNG's colour type."""

_PACKED = 0.9
"""A PNG file of more than this share of its pixels' bytes is not packed, or hardly."""

_FIRST, _SLOW, _THREADS = 256, 150e-6, 8
"""Files after which it is known whether one takes long, in seconds, and how many are then read side by side."""


@dataclasses.dataclass(frozen=True)
class Sums:
    """What was read of some files, in their order.

    Attributes:
        now: ``(N,)`` uint64, digests of the samples, or of all bytes.
        before: ``(N,)`` uint32, the checksums of the first scheme.
        decoded_anew: whether some file may give other pixels than when the first scheme was in use.
    """

    now: np.ndarray
    before: np.ndarray
    decoded_anew: bool


def sums_of_files(paths: Iterable[str | Path], sizes: Sequence[int] | np.ndarray, *, all_bytes: bool = False) -> Sums:
    """Read what counts of files; one that cannot be read counts as empty, and is told of where it is decoded.

    Args:
        paths: of the files.
        sizes: in bytes, as they were listed.
        all_bytes: read the files as a whole.
    """
    places, lengths = Texts(os.path.abspath(path) for path in paths), np.asarray(sizes, dtype=np.int64)  # noqa: PTH100
    read = _Reader("", places, lengths, all_bytes)
    if all_bytes or not is_kept(len(places)):
        return _sums(read_all(len(places), read))
    states = states_of(places)
    states[states[:, 0] != lengths] = GONE  # it changed while it was listed
    return _sums(remembered(os.path.dirname(places[0]), places, states, read))  # noqa: PTH120


def sums_of_listed(root: str | Path, paths: Texts, states: np.ndarray) -> Sums:
    """Read what counts of files whose states are known, as :func:`sums_of_files` does.

    Args:
        root: the folder that they lie in.
        paths: of the files, below it.
        states: ``(N, 4)`` int64, see :data:`ipvit.data.known_files.STATE`.
    """
    return _sums(remembered(os.fspath(root), paths, states, _Reader(f"{root}/", paths, states[:, 0], False)))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads what counts of files with some numbers, by several threads where that turns out to wait."""

    root: str
    paths: Texts
    sizes: np.ndarray
    all_bytes: bool

    def __call__(self, numbers: np.ndarray) -> Iterator[One]:
        """Yield it file by file."""
        started = time.perf_counter()
        yield from map(self._one, numbers[:_FIRST].tolist())
        rest = [numbers[start : start + _FIRST] for start in range(_FIRST, len(numbers), _FIRST)]
        if rest and time.perf_counter() - started > _FIRST * _SLOW:  # waiting for the drive or the network
            with ThreadPoolExecutor(_THREADS) as pool:
                for found in pool.map(self._some, rest):
                    yield from found.tolist()
        else:
            yield from map(self._one, numbers[_FIRST:].tolist())

    def _some(self, numbers: np.ndarray) -> np.ndarray:
        return as_array(map(self._one, numbers.tolist()))

    def _one(self, number: int) -> One:
        path = f"{self.root}{self.paths[number]}"
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return _NOTHING
        try:
            return _of_file(file, 0, int(self.sizes[number]), path, self.all_bytes)
        except OSError:
            return _NOTHING
        finally:
            os.close(file)


def sums_of_members(
    file: int, places: Sequence[tuple[int, int]], names: Sequence[str], *, all_bytes: bool = False
) -> Sums:
    """Read what counts of parts of one open file.

    Args:
        file: its descriptor.
        places: offset and size of each part.
        names: of the parts.
        all_bytes: read the parts as a whole.
    """

    def read(numbers: np.ndarray) -> Iterator[One]:
        for number in map(int, numbers):
            start, size = places[number]
            yield _of_file(file, start, size, names[number], all_bytes)

    return _sums(read_all(len(places), read))


def named(scheme: str, *parts: object) -> str:
    """Return the fingerprint of parts under a scheme, see :func:`ipvit.data.dataset.fingerprint`."""
    return f"{scheme}:{fingerprint(*parts)}"


def under(data: Dataset, other: str) -> Dataset:
    """Return the data under another fingerprint; the object itself where it is its own."""
    if other == data.fingerprint:
        return data
    same = copy.copy(data)
    same.__dict__["sampled_fingerprint"] = data.fingerprint
    same.__dict__["fingerprint"] = other
    return same


_NOTHING: One = (0, 0, False)


def _sums(read: Read) -> Sums:
    return Sums(read.now, read.before, bool(read.anew.any()))


def _of_file(file: int, start: int, size: int, name: str, all_bytes: bool) -> One:
    suffix = name[name.rfind(".") :].lower()
    if all_bytes or size <= SMALL or suffix in _AS_STORED:
        return _whole(file, start, size, suffix)
    head = os.pread(file, SAMPLE, start)
    if _is_stored_png(head, size):
        return _whole(file, start, size, suffix)
    middle = os.pread(file, SAMPLE, start + size // 2)
    quarters = os.pread(file, SAMPLE, start + size // 4) + os.pread(file, SAMPLE, start + size // 4 * 3)
    end = os.pread(file, SAMPLE, start + size - SAMPLE)
    return _digest(head + middle + quarters + end), zlib.crc32(middle), _was_grey_png(head)


def _whole(file: int, start: int, size: int, suffix: str) -> One:
    digest = hashlib.sha256()
    head = b""
    for offset in range(0, size, _CHUNK):
        chunk = os.pread(file, min(_CHUNK, size - offset), start + offset)
        head = head or chunk
        digest.update(chunk)
    before = zlib.crc32(os.pread(file, min(SAMPLE, size - size // 2), start + size // 2))
    anew = _was_grey_png(head) or (suffix in _TIFF and _is_deep_tiff(os.pread(file, size, start)))
    return int.from_bytes(digest.digest()[:8], "little"), before, anew


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def _is_stored_png(head: bytes, size: int) -> bool:
    if not head.startswith(_PNG) or len(head) < 26:
        return False
    width, height, depth, colour = _HEAD.unpack_from(head, 16)
    return size >= _PACKED * width * height * depth * _CHANNELS.get(colour, 1) / 8


def _was_grey_png(head: bytes) -> bool:
    """Whether a file is a PNG of 16 bits, which was narrowed to 8 without regard to its scale."""
    return head.startswith(_PNG) and len(head) > 24 and head[24] == 16


def _is_deep_tiff(data: bytes) -> bool:
    from ipvit.data.depth import is_deep

    with contextlib.suppress(OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):
        return is_deep(Image.open(io.BytesIO(data), formats=["TIFF"]))
    return False
