"""The files of an uncompressed tar, all of them or none: a damaged one would otherwise end where its damage begins."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

from ipvit.data.formats.image_files import LeftOut
from ipvit.errors import InputError, error_line

_CHUNK = 2**20


def members_of(path: Path, name: str, left_out: LeftOut) -> list[tarfile.TarInfo]:
    """Return the files in a tar, in their order; links are left out and told.

    Args:
        path: of the tar.
        name: for messages.
        left_out: where links are counted.

    Raises:
        InputError: it is no uncompressed tar file, is damaged or cut, or another one lies behind it.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            found = list(archive)
            end = archive.offset
        size = path.stat().st_size
        behind = _behind(path, end)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name!r} is not an uncompressed tar file: {error_line(error)}") from None
    files = [member for member in found if member.isfile()]
    if files and files[-1].offset_data + files[-1].size > size:
        raise InputError(f"{name!r} is cut off in {files[-1].name!r}; fetch or make it again")
    if behind:
        raise InputError(
            f"{name!r} is damaged, or two archives behind each other: its list of files ends at byte {end:,}, and more "
            f"follows up to byte {size:,}; make it again"
        )
    for member in found:
        if member.islnk() or member.issym():
            left_out.add_link(member.name.removeprefix("./"))
    return files


def _behind(path: Path, end: int) -> bool:
    """Tell whether anything but zeros follows the end of an archive."""
    with path.open("rb") as file:
        file.seek(end)
        while chunk := file.read(_CHUNK):
            if chunk.strip(b"\0"):
                return True
    return False
