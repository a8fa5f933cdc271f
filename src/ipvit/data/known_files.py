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
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ipvit.core.files import cache_folder, write_atomic
from ipvit.core.text.texts import Texts

FEWEST = 2_000
"""Files of a set from which on it is kept: fewer are read at once."""

SETTLED = 60.0
"""Seconds that a file must have stayed as it is; the clock of a network drive may be another."""

STATE = ("size", "inode", "mtime", "ctime")
"""What tells the state of a file, in the order of the columns of states; times in nanoseconds."""

GONE = (0, 0, 0, np.iinfo(np.int64).max)
"""The state of a file that is not there, such as a link to nowhere; no file that was read before has it."""

_ONE = [("now", "<u8"), ("before", "<u4"), ("anew", "?")]
_ENTRY = np.dtype([("path", "<u8"), *((name, "<i8") for name in STATE), *_ONE])
"""Of one file: the digest of its path below its folder, what tells its state, and what was read of it."""

_AT_ONCE = 2**16
"""Entries that are read from what is kept, or written, at once."""

_DIGEST = 32
"""Bytes of the digest behind all entries."""

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


def as_array(found: Iterable[One]) -> np.ndarray:
    """Return what was read of files as an array, 13 bytes each: in objects of Python a million take 160 MB."""
    return np.fromiter(found, np.dtype(_ONE))


def nothing_kept_is_used() -> bool:
    """Tell whether what was kept of earlier calls must not be used."""
    return _READ_ANEW.get()


def remembered(root: str, paths: Texts, states: np.ndarray, read: Callable[[np.ndarray], Iterable[One]]) -> np.ndarray:
    """Return what was read of files, of those that have not changed from the user's cache, as :func:`as_array` does.

    Args:
        root: the folder that their paths begin in.
        paths: of the files, below it.
        states: ``(N, 4)`` int64, see :data:`STATE`.
        read: reads the files with some numbers.
    """
    folder = cache_folder()
    if not is_kept(len(paths)) or folder is None:
        return as_array(read(np.arange(len(paths))))
    started = time.time()
    place = folder / "files" / hashlib.blake2b(os.fsencode(os.path.abspath(root)), digest_size=8).hexdigest()  # noqa: PTH100
    digests = paths.digests()
    found, known = _recall(place, digests, states)
    lacking = np.flatnonzero(~known)
    if len(lacking):
        found[lacking] = as_array(read(lacking))
        _keep(place, digests, states, found, states[:, STATE.index("ctime")] < (started - SETTLED) * 1e9)
    return found


def is_kept(count: int) -> bool:
    """Tell whether what is read of so many files is kept."""
    return count >= FEWEST and not nothing_kept_is_used() and sys.platform != "win32"  # there ctime is another


def states_of(paths: Texts) -> np.ndarray:
    """Return ``(N, 4)`` int64, see :data:`STATE`, of files."""

    def state(path: str) -> tuple[int, ...]:
        try:
            found = os.stat(path)  # noqa: PTH116 - a million of them
        except OSError:
            return GONE
        return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    found = np.empty((len(paths), len(STATE)), np.int64)
    texts = iter(paths)
    for start in range(0, len(paths), _AT_ONCE):
        some = list(map(state, itertools.islice(texts, _AT_ONCE)))
        found[start : start + len(some)] = as_numbers(some)
    return found


def as_numbers(states: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return the states of some files as int64, a row each."""
    try:
        return np.array(states, np.int64)
    except OverflowError:  # some systems number their files up to 2^64
        return np.array([[(value + 2**63) % 2**64 - 2**63 for value in state] for state in states], np.int64)


def _recall(place: Path, digests: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is kept of files in the same state, and of which; of none where it is damaged."""
    found, known = np.zeros(len(digests), np.dtype(_ONE)), np.zeros(len(digests), dtype=bool)
    try:
        with place.open("rb") as file:
            count, rest = divmod(os.fstat(file.fileno()).st_size - _DIGEST, _ENTRY.itemsize)
            if rest or count < 0:
                return found, known
            digest, order = hashlib.sha256(), None
            for start in range(0, count, _AT_ONCE):
                content = file.read(min(_AT_ONCE, count - start) * _ENTRY.itemsize)
                digest.update(content)
                kept = np.frombuffer(content, _ENTRY)
                at = np.arange(start, start + len(kept))
                if order is None and not np.array_equal(kept["path"], digests[start : start + len(kept)]):
                    order = np.argsort(digests)  # files have come or gone
                if order is not None:
                    at = order[np.searchsorted(digests, kept["path"], sorter=order).clip(max=len(order) - 1)]
                same = kept["path"] == digests[at]
                for column, name in enumerate(STATE):
                    same &= kept[name] == states[at, column]
                at = at[same]
                known[at] = True
                for name, _ in _ONE:
                    found[name][at] = kept[name][same]
            if digest.digest() != file.read():
                known[:] = False
    except OSError:
        known[:] = False
    return found, known


def _keep(place: Path, digests: np.ndarray, states: np.ndarray, found: np.ndarray, settled: np.ndarray) -> None:
    chosen = np.flatnonzero(settled)

    def content() -> Iterator[bytes]:
        digest = hashlib.sha256()
        for start in range(0, len(chosen), _AT_ONCE):
            at = chosen[start : start + _AT_ONCE]
            entries = np.zeros(len(at), _ENTRY)
            entries["path"] = digests[at]
            for column, name in enumerate(STATE):
                entries[name] = states[at, column]
            for name, _ in _ONE:
                entries[name] = found[name][at]
            some = entries.tobytes()
            digest.update(some)
            yield some
        yield digest.digest()

    with contextlib.suppress(OSError):  # a cache that cannot be written is no fault
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, content())
