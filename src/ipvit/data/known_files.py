"""What was read of files before, kept in the user's cache, so that a second start need not open a million files.

A file is the same where its path, size, inode and both its times are. The time of the last change of its state
(``ctime``) cannot be put back by who edits it, unlike that of its content. Files that were changed just before they
were read are not kept: they may be changed again within the same tick of the clock. ``--no-cache`` and ``--verify`` use
nothing of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import itertools
import os
import struct
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ipvit.core.files import cache_folder, write_atomic
from ipvit.core.text.texts import Texts
from ipvit.data.folder_content import COLUMNS, rows_of

FEWEST = 2_000
"""Files of a set from which on it is kept: fewer are read at once."""

SETTLED = 60.0
"""Seconds that a file must have stayed as it is; the clock of a network drive may be another."""

STATE = ("size", "inode", "mtime", "ctime")
"""What tells the state of a file, in the order of the columns of states; times in nanoseconds."""

GONE = (0, 0, 0, np.iinfo(np.int64).max)
"""The state of a file that is not there, such as a link to nowhere; no file that was read before has it."""

_READ = [("now", "<u8"), ("before", "<u4"), ("anew", "?")]

_HEAD = struct.Struct("<8sq32s")
"""Of what is kept: a mark, how many files, and the digest of their paths in their order."""

_MARK = b"files-2\n"

_ENTRY = np.dtype([("path", "<u8"), ("state", "<i8", len(STATE)), *_READ])
"""Of each file: the digest of its path below its folder, its state, and what was read of it."""

_AT_ONCE = 2**14
"""Files that are asked for, read, and looked up in what is kept, or written there, at once."""

_DIGEST = 32
"""Bytes of the digest behind all of it."""

_UNSETTLED = np.iinfo(np.int64).min
"""A time of change that no file has: one that had it a moment ago is read again."""

_READ_ANEW: contextvars.ContextVar[bool] = contextvars.ContextVar("_READ_ANEW", default=False)

One = tuple[int, int, bool]
"""What was read of a file, see :class:`ipvit.data.fingerprints.Sums`."""


@contextlib.contextmanager
def files_read_anew(wanted: bool) -> Generator[None]:
    """Use nothing that was kept, where that is wanted."""
    token = _READ_ANEW.set(wanted)
    try:
        yield
    finally:
        _READ_ANEW.reset(token)


class Read:
    """What was read of files: in objects of Python a million take 160 MB.

    Attributes:
        now, before: as in :class:`ipvit.data.fingerprints.Sums`.
        anew: ``(N,)`` bool.
    """

    def __init__(self, count: int) -> None:
        self.now, self.before, self.anew = np.zeros(count, "<u8"), np.zeros(count, "<u4"), np.zeros(count, "?")

    def put(self, at: np.ndarray | slice, found: np.ndarray) -> None:
        """Note what was read of the files with some numbers, see :func:`as_array`."""
        self.now[at], self.before[at], self.anew[at] = found["now"], found["before"], found["anew"]


def as_array(found: Iterable[One]) -> np.ndarray:
    """Return what was read of some files as an array."""
    return np.fromiter(found, np.dtype(_READ))


def nothing_kept_is_used() -> bool:
    """Tell whether what was kept of earlier calls must not be used."""
    return _READ_ANEW.get()


def remembered(root: str, paths: Texts, states: np.ndarray, read: Callable[[np.ndarray], Iterable[One]]) -> Read:
    """Return what was read of files, of those that have not changed from the user's cache.

    Args:
        root: the folder that their paths begin in.
        paths: of the files, below it.
        states: ``(N, 4)`` int64, see :data:`STATE`.
        read: reads the files with some numbers.
    """
    folder = cache_folder()
    if not is_kept(len(paths)) or folder is None:
        return read_all(len(paths), read)
    started = time.time()
    place = folder / "files" / hashlib.blake2b(os.fsencode(os.path.abspath(root)), digest_size=8).hexdigest()  # noqa: PTH100
    found, known = _recall(place, paths, states)
    if not known.all():
        _read_unknown(found, known, read)
        _keep(place, paths, states, found, before=int((started - SETTLED) * 1e9))
    return found


def read_all(count: int, read: Callable[[np.ndarray], Iterable[One]]) -> Read:
    """Return what is read of so many files.

    Args:
        count: of the files.
        read: reads those with some numbers.
    """
    found = Read(count)
    _read_unknown(found, np.zeros(count, dtype=bool), read)
    return found


def _read_unknown(found: Read, known: np.ndarray, read: Callable[[np.ndarray], Iterable[One]]) -> None:
    for start in range(0, len(known), _AT_ONCE):
        at = start + np.flatnonzero(~known[start : start + _AT_ONCE])
        if len(at):
            found.put(at, as_array(read(at)))


def is_kept(count: int) -> bool:
    """Tell whether what is read of so many files is kept."""
    return count >= FEWEST and not nothing_kept_is_used() and sys.platform != "win32"  # there ctime is another


def states_of(paths: Texts) -> np.ndarray:
    """Return ``(N, 4)`` int64, see :data:`STATE`, of files."""
    found = np.empty((len(paths), len(STATE)), np.int64)
    texts = iter(paths)
    for start in range(0, len(paths), _AT_ONCE):
        told = rows_of(list(itertools.islice(texts, _AT_ONCE)), os.stat)
        rows = np.frombuffer(told, np.int64).reshape(-1, len(COLUMNS))
        some = found[start : start + len(rows)]
        some[:] = rows[:, 1:]
        some[rows[:, 0] < 0] = GONE
    return found


def _recall(place: Path, paths: Texts, states: np.ndarray) -> tuple[Read, np.ndarray]:
    """Return what is kept of files in the same state, and of which; of none where it is damaged."""
    found, known = Read(len(paths)), np.zeros(len(paths), dtype=bool)
    try:
        with place.open("rb") as file:
            for at, kept in _kept(file, paths):
                same = (kept["state"] == states[at]).all(axis=1)
                if not same.all():
                    at, kept = _numbers(at)[same], kept[same]
                found.put(at, kept)
                known[at] = True
    except (OSError, _DamagedError):
        known[:] = False
    return found, known


def _kept(file: BinaryIO, paths: Texts) -> Iterator[tuple[np.ndarray | slice, np.ndarray]]:
    """Yield numbers of files and what is kept of them, some at a time.

    Raises:
        _DamagedError: it is not what was written, which may show at the end only.
    """
    head = file.read(_HEAD.size)
    mark, count, of_paths = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0, b"")
    if mark != _MARK or os.fstat(file.fileno()).st_size != _HEAD.size + count * _ENTRY.itemsize + _DIGEST:
        raise _DamagedError
    alike = count == len(paths) and of_paths == paths.digest()
    places = None if alike else _Places(paths)  # files have come or gone
    digest = hashlib.sha256(head)
    for start in range(0, count, _AT_ONCE):
        content = file.read(min(_AT_ONCE, count - start) * _ENTRY.itemsize)
        digest.update(content)
        kept = np.frombuffer(content, _ENTRY)
        if places is None:
            yield slice(start, start + len(kept)), kept
        else:
            at, there = places.of(kept["path"])
            yield at[there], kept[there]
    if digest.digest() != file.read():
        raise _DamagedError


def _numbers(at: np.ndarray | slice) -> np.ndarray:
    return np.arange(at.start, at.stop) if isinstance(at, slice) else at


class _DamagedError(Exception):
    """What is kept is not what was written."""


class _Places:
    """Finds paths by their digests."""

    def __init__(self, paths: Texts) -> None:
        self._digests = paths.digests()
        self._order = np.argsort(self._digests)

    def of(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of paths, and for which digests there are such."""
        found = np.searchsorted(self._digests, digests, sorter=self._order)
        at = self._order[found.clip(max=len(self._order) - 1)]
        return at, self._digests[at] == digests


def _keep(place: Path, paths: Texts, states: np.ndarray, found: Read, *, before: int) -> None:
    """Keep what was read of files; only their paths where they changed since some time, in nanoseconds."""

    def content() -> Iterator[bytes]:
        some = _HEAD.pack(_MARK, len(paths), paths.digest())
        digest = hashlib.sha256(some)
        yield some
        for start in range(0, len(paths), _AT_ONCE):
            at = slice(start, start + _AT_ONCE)
            entries = np.zeros(len(found.now[at]), _ENTRY)
            entries["path"] = paths.digests(start, start + _AT_ONCE)
            entries["state"] = states[at]
            entries["state"][entries["state"][:, -1] >= before, -1] = _UNSETTLED
            entries["now"], entries["before"], entries["anew"] = found.now[at], found.before[at], found.anew[at]
            some = entries.tobytes()
            digest.update(some)
            yield some
        yield digest.digest()

    with contextlib.suppress(OSError):  # a cache that cannot be written is no fault
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, content())
