"""Images that are in two data sets, found by their content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.synthetic import trifeature

_SizedFile = tuple[Path, int]

MOST_COMPARED = 50_000
"""Images up to which two sets whose images are no files of their own are compared pixel by pixel."""

_SAMPLE = 64
"""Bytes from the middle of a file, which tell most files of one size apart."""


def copies(first: Dataset, second: Dataset) -> list[str]:
    """Return the ids of the second set's images that are in the first one byte by byte, or pixel by pixel.

    Sets whose images are no files of their own are compared up to :data:`MOST_COMPARED` images together.
    """
    if isinstance(first, trifeature.Trifeature) and isinstance(second, trifeature.Trifeature):
        return []  # each set is drawn from numbers of its own
    files = _files(first), _files(second)
    if files[0] is not None and files[1] is not None:
        return [second.ids[row] for row in in_both(files[0], files[1])]
    if len(first) + len(second) > MOST_COMPARED or first.sequential or second.sequential:
        return []
    known: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in _pixels(second):
        known[digest].append(index)
    found = {index for _, digest in _pixels(first) for index in known.get(digest, ())}
    return [second.ids[index] for index in sorted(found)]


def _files(data: Dataset) -> list[_SizedFile] | None:
    """Return the files of a data set with their sizes where its images are whole files below a folder."""
    root = getattr(data, "root", None)
    if not isinstance(root, Path) or not root.is_dir() or getattr(data, "boxes", None) is not None:
        return None
    try:
        return [((path := root / name), path.stat().st_size) for name in data.ids]
    except OSError:
        return None


def in_both(files: Sequence[_SizedFile], others: Sequence[_SizedFile]) -> list[int]:
    """Return which of the others are among the files. Few are read whole: sizes and samples tell most apart."""
    rows = list(range(len(others)))
    for key in (_size, _sample, _digest):
        wanted = {row: key(others[row]) for row in rows}
        there = [key(file) for file in files]
        alike = set(wanted.values()).intersection(there)
        files = [file for file, found in zip(files, there, strict=True) if found in alike]
        rows = [row for row in rows if wanted[row] in alike]
    return rows


def _size(file: _SizedFile) -> object:
    return file[1]


def _sample(file: _SizedFile) -> object:
    path, size = file
    with path.open("rb") as opened:
        opened.seek(size // 2)
        return size, opened.read(_SAMPLE)


def _digest(file: _SizedFile) -> object:
    return hashlib.sha256(file[0].read_bytes()).digest()


def _pixels(data: Dataset) -> Iterable[tuple[int, bytes]]:
    for index in range(len(data)):
        try:
            pixels = data.read(index).numpy()
        except UnreadableImageError:
            continue  # named when it is its turn
        yield index, hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
