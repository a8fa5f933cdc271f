"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

_PASSING = frozenset({errno.EBUSY, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.EACCES})
"""Why a rename on a network drive may fail now and succeed a moment later."""

_WAITS = (0.05, 0.2, 0.5)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it: a reader never sees half of it.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # processes of other machines may write here and have the same process number
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell of
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _rename(source: Path, target: Path) -> None:
    for wait in (*_WAITS, None):
        try:
            source.replace(target)
        except OSError as error:
            if target.exists() and not source.exists():
                return  # NFS: it was done, the answer got lost, and the repeated request found nothing to rename
            if wait is None or error.errno not in _PASSING:
                raise
            time.sleep(wait)
        else:
            return


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows and some network drives cannot: the file itself is on the disk
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
