"""Finding the image files of a folder, and what its class folders are called."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

from ipvit.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
CLASS_LIST = "classes.txt"

SAMPLE = 1024
"""Bytes of a file that count for the fingerprint of the data."""


def class_names(listing: Path, folders: set[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return names and second names of the classes that have folders: those of a ``classes.txt``, else the folders."""
    if not listing.is_file():
        return (tuple(sorted(folders)) if folders else None), None
    lines = [line.split("\t") for line in listing.read_text("utf-8").splitlines() if line.strip()]
    names = tuple(line[0].strip() for line in lines)
    missing = sorted(folders - set(names))
    if missing:
        raise InputError(f"{listing}: the folder {missing[0]!r} is not listed ({len(missing)} such folders)")
    if len(set(names)) != len(names):
        raise InputError(f"{listing}: a folder is listed twice")
    aliases = tuple(line[1].strip() if len(line) > 1 else name for line, name in zip(lines, names, strict=True))
    return names, aliases


def checksum(path: Path, size: int) -> int:
    """Return a checksum of a few bytes from the middle of a file: files can be rewritten at the same size."""
    try:
        with path.open("rb") as file:
            file.seek(size // 2)
            return zlib.crc32(file.read(SAMPLE))
    except OSError:
        return 0


def image_files(root: Path) -> list[tuple[str, int]]:
    """Return path below the root and size of every image file in a folder, in no order; links are followed.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found = []
    top = os.path.realpath(root)
    above = {os.fspath(root): frozenset({top})}  # the folders that lie around one, links followed
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        around = above.pop(folder)
        inside = {name: os.path.realpath(Path(folder) / name) for name in subfolders if not name.startswith(".")}
        # a link to a folder around it leads into it again and again
        subfolders[:] = [
            n for n, place in inside.items() if place not in around and not Path(top).is_relative_to(place)
        ]
        above |= {os.path.join(folder, name): around | {inside[name]} for name in subfolders}  # noqa: PTH118 - as os.walk
        base = Path(folder).relative_to(root).as_posix()
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                path = name if base == "." else f"{base}/{name}"
                try:
                    state = (Path(folder) / name).stat()
                except OSError:  # a link to nowhere is reported where it is read
                    found.append((path, 0))
                else:
                    if stat.S_ISREG(state.st_mode):
                        found.append((path, state.st_size))
    return found


def _refuse(error: OSError) -> None:
    """A folder that cannot be read would be missing without a word."""
    raise InputError(f"cannot read the folder {readable(str(error.filename))!r}: {error.strerror}")


def readable(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes of a name that are no UTF-8 become ``\\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
