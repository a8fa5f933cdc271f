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
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

import numpy as np

from ipvit.core.files import cache_folder, write_atomic

FEWEST = 2_000
"""Files of a set from which on it is kept: fewer are read at once."""

SETTLED = 60.0
"""Seconds that a file must have stayed as it is; the clock of a network drive may be another."""

_STATE = [("path", "<u8"), ("size", "<i8"), ("inode", "<u8"), ("mtime", "<i8"), ("ctime", "<i8")]
_ONE = [("now", "<u8"), ("before", "<u4"), ("anew", "?")]
_ENTRY = np.dtype([*_STATE, *_ONE])
"""Of one file: the digest of its path, what tells its state, and what was read of it."""

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


def remembered(paths: Sequence[str], sizes: np.ndarray, read: Callable[[np.ndarray], Iterable[One]]) -> np.ndarray:
    """Return what was read of files, of those that have not changed from the user's cache, as :func:`as_array` does.

    Args:
        paths: of the files.
        sizes: in bytes, as they were listed.
        read: reads the files with some numbers.
    """
    folder = cache_folder()
    if (
        len(paths) < FEWEST or folder is None or nothing_kept_is_used() or sys.platform == "win32"
    ):  # there ctime is another
        return as_array(read(np.arange(len(paths))))
    started = time.time()
    found = _states(paths)
    found["size"][found["size"] != sizes] = -1  # it changed while it was listed
    place = folder / "files" / f"{_digest(os.fspath(Path(paths[0]).absolute().parent)):016x}"
    known = _recall(place, found)
    lacking = np.flatnonzero(~known)
    if len(lacking):
        read_now = as_array(read(lacking))
        for name, _ in _ONE:
            found[name][lacking] = read_now[name]
        _keep(place, found[(found["size"] >= 0) & (found["ctime"] < (started - SETTLED) * 1e9)])
    return found[[name for name, _ in _ONE]]


def _states(paths: Sequence[str]) -> np.ndarray:
    """Return an entry for each file, without what is read of it; a size below 0 where there is no such file."""

    def state(path: str) -> tuple[int, ...]:
        plain = path.startswith("/") and "//" not in path and "/." not in path  # else it is made so, which takes longer
        whose = _digest(path if plain else os.path.abspath(path))  # noqa: PTH100 - a million of them
        try:
            found = os.stat(path)  # noqa: PTH116 - likewise
        except OSError:
            return whose, -1, 0, 0, 0
        return whose, found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    found = np.zeros(len(paths), _ENTRY)
    states = np.fromiter(map(state, paths), np.dtype(_STATE), len(paths))
    for name, _ in _STATE:
        found[name] = states[name]
    return found


def _recall(place: Path, found: np.ndarray) -> np.ndarray:
    """Fill in what is kept of files in the same state; return which these are."""
    kept = _load(place)
    if not len(kept):
        return np.zeros(len(found), dtype=bool)
    at = np.searchsorted(kept["path"], found["path"]).clip(max=len(kept) - 1)
    same = found["size"] >= 0
    for name, _ in _STATE:
        same &= kept[name][at] == found[name]
    for name, _ in _ONE:
        found[name][same] = kept[name][at[same]]
    return same


def _load(place: Path) -> np.ndarray:
    """Return what is kept, by path; nothing where it is damaged."""
    try:
        content = place.read_bytes()
    except OSError:
        return np.zeros(0, _ENTRY)
    head, entries = content[:32], content[32:]
    if hashlib.sha256(entries).digest() != head or len(entries) % _ENTRY.itemsize:
        return np.zeros(0, _ENTRY)
    return np.frombuffer(entries, _ENTRY)


def _keep(place: Path, entries: np.ndarray) -> None:
    content = np.sort(entries, order="path").tobytes()
    with contextlib.suppress(OSError):  # a cache that cannot be written is no fault
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, hashlib.sha256(content).digest() + content)


def _digest(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
