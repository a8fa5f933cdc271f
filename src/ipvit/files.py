"""Paths that a user gives, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from pathlib import Path

from ipvit.errors import InputError, shown

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


def clear_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left below a folder; only for whoever alone writes there."""
    for left in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # it is in nobody's way
            left.unlink()


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


def cache_folder() -> Path | None:
    """Return the folder for what can be made again, where the operating system has it, or None where there is none."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            return base / "ipvit" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "ipvit"
        stated = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(stated) if Path(stated).is_absolute() else Path.home() / ".cache") / "ipvit"
    except RuntimeError:  # nobody's home
        return None


def user_path(text: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` spelled out.

    Raises:
        InputError: no file can have that name, or nobody may look there.
    """
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~nobody; ValueError: a NUL in the name
        raise InputError(f"{shown(str(text))} is no path: {getattr(error, 'strerror', None) or error}") from None
    return path
