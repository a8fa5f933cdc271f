"""Nothing is written through a link that lies in an output folder: what it leads to is somebody else's.

A file that is written whole and renamed takes the place of a link, which leaves alone what that led to. What has to be
looked at are the folders on the way, and the few files that are written in place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ipvit.errors import InputError

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_IS_LINK = frozenset({errno.ELOOP, errno.EMLINK})


def refuse_links(root: Path, names: Iterable[str] | None = None, *, files: bool = False) -> None:
    """Check that no folder below an output folder is a link; the output folder itself may be one.

    Args:
        root: the output folder.
        names: of what is looked at in it, with everything below; all by default.
        files: refuse links to files too.

    Raises:
        InputError: names the first link.
    """
    for place in [root] if names is None else [root / name for name in names]:
        for link in _links(place, itself=names is not None):
            if files or link.is_dir() or not link.exists():
                raise _refusal(link)


def refuse_unwritable(folder: Path, what: str) -> None:
    """Refuse a folder that is not there and cannot be made, or is there and cannot be written; nothing is written.

    Args:
        folder: its path.
        what: what it is, in words.

    Raises:
        InputError: it lies below a file, or may not be written to.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"cannot write to the {what} {str(folder)!r}: {str(there)!r} is a file")
    if not os.access(there, os.W_OK):
        raise InputError(f"cannot write to the {what} {str(folder)!r}: {str(there)!r} may not be written to")


def _links(folder: Path, *, itself: bool) -> Iterator[Path]:
    if itself and _is_link(folder):
        yield folder
    elif folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                if entry.is_dir() or entry.is_symlink():
                    yield from _links(folder / entry.name, itself=True)


def open_in_place(path: Path, flags: int) -> int:
    """Open a file that is written in place, or make it, and return its number; never through a link.

    Where the system cannot refuse a link itself, the file that was opened is compared with what has its name.

    Raises:
        InputError: the path is a link.
        OSError: it cannot be opened.
    """
    if _is_link(path):
        raise _refusal(path)
    try:
        file = os.open(path, flags | _NOFOLLOW | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno in _IS_LINK:
            raise _refusal(path) from None
        raise
    if _is_link(path) or not os.path.samestat(os.fstat(file), path.lstat()):
        os.close(file)
        raise _refusal(path)
    return file


def _is_link(path: Path) -> bool:
    is_junction: Callable[[Path], bool] | None = getattr(os.path, "isjunction", None)  # since Python 3.12
    return path.is_symlink() or (is_junction is not None and is_junction(path))


def _refusal(path: Path) -> InputError:
    return InputError(
        f"{str(path)!r} is a link, and nothing is written through a link in an output folder; remove it, or give "
        "another folder"
    )
