"""The names in a folder and the states of what they stand for; run as a program, of one folder after the other.

The program is for a second processor: a million answers of the system take two seconds, and what Python makes of them
as long again. It is started without this package, so nothing but the standard library is used here. It reads the length
of a folder's path and the path, and writes :data:`HEAD`, the names with a zero behind each, and the rows. It ends with
its input, so that it outlives nobody; Ctrl-C is for who started it.
"""

from __future__ import annotations

import array
import functools
import gc
import itertools
import operator
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence

COLUMNS = ("st_mode", "st_size", "st_ino", "st_mtime_ns", "st_ctime_ns")
"""What a row holds of a file, as int64; where the system gives no answer, minus the number of its error, and zeros."""

KIND = 0o170000
"""The bits of a mode that say what it is of."""

REQUEST = struct.Struct("=q")
"""Bytes of the path that follows."""

HEAD = struct.Struct("=8sqq")
"""A mark, how many names, or -1 where the folder cannot be read, and how many bytes they have together."""

MARK = b"ipvit-1\n"
"""What the program begins with, and each of its answers."""

_AT_ONCE = 4096
_COLUMNS_OF = operator.attrgetter(*COLUMNS)


def content_of(path: str) -> tuple[bytes, array.array[int]]:
    """Return the sorted names in a folder, each with a zero behind it, and a row of :data:`COLUMNS` for each.

    Raises:
        OSError: the folder cannot be read.
    """
    if os.stat not in os.supports_dir_fd or os.listdir not in os.supports_fd:  # Windows
        names = sorted(os.listdir(path))  # noqa: PTH208 - a million of them
        return as_block(names), rows_of(names, lambda name: os.stat(f"{path}/{name}"))  # noqa: PTH116 - likewise
    descriptor = os.open(path, os.O_RDONLY)
    try:
        names = sorted(os.listdir(descriptor))  # noqa: PTH208 - likewise
        return as_block(names), rows_of(names, functools.partial(os.stat, dir_fd=descriptor))
    finally:
        os.close(descriptor)


def as_block(names: Sequence[str]) -> bytes:
    """Return names in one block, each with a zero behind it, which no name holds."""
    return "\0".join((*names, "")).encode("utf-8", "surrogatepass")


def rows_of(names: Sequence[str], state_of: Callable[[str], os.stat_result]) -> array.array[int]:
    """Return a row of :data:`COLUMNS` for each of some names, one after the other.

    Args:
        names: of files and folders.
        state_of: asks the system for one.
    """
    rows: array.array[int] = array.array("q")
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        try:  # without a line of Python for each
            rows += array.array("q", itertools.chain.from_iterable(map(_COLUMNS_OF, map(state_of, some))))
        except (OSError, OverflowError):
            for name in some:
                rows.extend(_row(name, state_of))
    return rows


def _row(name: str, state_of: Callable[[str], os.stat_result]) -> list[int]:
    try:
        found = _COLUMNS_OF(state_of(name))
    except OSError as error:
        return [-(error.errno or 1), *[0] * (len(COLUMNS) - 1)]
    return [signed(value) for value in found]


def signed(value: int) -> int:
    """Return a number below 2^64, such as some systems give to files, as the int64 of the same bits."""
    return (value + 2**63) % 2**64 - 2**63


def _answer_requests() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    told.write(MARK)
    told.flush()
    while len(head := asked.read(REQUEST.size)) == REQUEST.size:
        try:
            names, rows = content_of(os.fsdecode(asked.read(REQUEST.unpack(head)[0])))
        except OSError:  # who asked will see for himself
            told.write(HEAD.pack(MARK, -1, 0))
        else:
            told.write(HEAD.pack(MARK, len(rows) // len(COLUMNS), len(names)) + names)
            told.write(rows)
        told.flush()


if __name__ == "__main__":
    _answer_requests()
