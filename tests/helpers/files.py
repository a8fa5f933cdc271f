"""Files on the disk: what a folder holds, and a change that only the content shows."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def contents(folder: Path, *, but: Collection[str] = ()) -> dict[str, bytes]:
    """Return the content of every file below a folder by its path, except those of some names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def change_byte(path: Path, place: int) -> None:
    """Change one byte of a file and nothing else, its time included."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
