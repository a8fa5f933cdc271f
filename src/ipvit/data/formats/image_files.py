"""Finding the image files of a folder, and what its class folders are called."""

from __future__ import annotations

import collections
import os
from pathlib import Path

from ipvit.core.text.text_files import read_text, same_letters
from ipvit.errors import InputError

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .ppm .pgm .gif .avif .jp2".split()  # noqa: SIM905 - one line
)
"""What the name of a picture ends in, in folders, tar files and streams alike."""

CLASS_LIST = "classes.txt"

_HIDDEN = frozenset(
    {
        "@eadir",  # thumbnails of Synology's drives
        ".@__thumb",  # of QNAP's
        "__macosx",  # what macOS packs beside the files
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "#snapshot",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Folders and files, in lower case, that systems leave among the user's and do not show."""

_OWN = frozenset({CLASS_LIST, "stylize.json", "corrupt.json", "contact-sheet.html"})
"""What is expected beside the pictures: the list of the classes, and what our copies bring."""


def is_hidden(path: str) -> bool:
    """Tell whether a file is hidden, or lies in a hidden folder: its name begins with a dot, or a system made it.

    >>> is_hidden("cat/._1.JPEG"), is_hidden("cat/@eaDir/1.jpg/thumb.jpg"), is_hidden("./cat/1.jpg")
    (True, True, False)
    """
    return any(_is_hidden_name(part) for part in path.split("/") if part not in ("", ".", ".."))


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def is_picture(path: str) -> bool:
    """Tell whether a file is a picture by the end of its name, and not hidden."""
    return _suffix(path) in IMAGE_SUFFIXES and not is_hidden(path)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a path object a file is half of the time


class LeftOut:
    """What lies among the pictures of a data set and is not used."""

    def __init__(self) -> None:
        self._hidden: list[str] = []
        self._kinds: collections.Counter[str] = collections.Counter()
        self._links: list[str] = []
        self._replaced: list[str] = []

    def add(self, path: str) -> None:
        """Count a file, or a hidden folder as one, that :func:`is_picture` refuses."""
        if is_hidden(path):
            self._hidden.append(path)
        elif path.rsplit("/", 1)[-1] not in _OWN:
            self._kinds[_suffix(path) or "no ending"] += 1

    def add_file(self, below: str, name: str) -> None:
        """Count a file in a folder where it might have been meant: a hidden one only where it looks like a picture."""
        if not _is_hidden_name(name) or _suffix(name) in IMAGE_SUFFIXES:
            self.add(below + name)

    def add_hidden_folder(self, path: str, name: str) -> bool:
        """Tell whether a folder is hidden, and count it where a system made it: .git is nobody's pictures."""
        if not _is_hidden_name(name):
            return False
        if name.lower() in _HIDDEN:
            self.add(path)
        return True

    def include(self, other: LeftOut) -> None:
        """Count what another one counted, too."""
        self._hidden += other._hidden
        self._kinds += other._kinds
        self._links += other._links
        self._replaced += other._replaced

    def add_link(self, path: str) -> None:
        """Count a link in an archive: what it leads to is not read a second time."""
        self._links.append(path)

    def add_replaced(self, path: str) -> None:
        """Count a file of an archive that a later one of the same name replaces."""
        self._replaced.append(path)

    def notes(self, name: str) -> tuple[str, ...]:
        """Return what a reader should know of what was left out; nothing where all is used."""
        parts = []
        if self._hidden:
            parts.append(
                f"{len(self._hidden):,} hidden ({readable(min(self._hidden))}{', ...' * (len(self._hidden) > 1)})"
            )
        if self._kinds:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self._kinds.most_common(5))
            parts.append(f"{self._kinds.total():,} that are no pictures by their names ({kinds})")
        if self._links:
            parts.append(f"{len(self._links):,} links ({readable(min(self._links))})")
        if self._replaced:
            parts.append(
                f"{len(self._replaced):,} replaced by later ones of the same name ({readable(min(self._replaced))})"
            )
        return (f"{name}: files left out: {'; '.join(parts)}",) if parts else ()


def class_names(listing: Path, folders: set[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return names and second names of the classes that have folders: those of a ``classes.txt``, else the folders.

    Names are those of the folders where these are spelled with other characters for the same letters. There are second
    names where a line of the list has one, be it the same. A list whose columns are divided by commas, semicolons,
    equals signs, colons or spaces is read where the folders are found so and not otherwise.

    Raises:
        InputError: a folder is not listed or listed twice, or the list is in an unknown encoding; names the line.
    """
    if not listing.is_file():
        return (tuple(sorted(folders)) if folders else None), None
    known = {same_letters(folder): folder for folder in folders}
    try:
        text = read_text(listing, lambda text: _columns(text, set(known)) is not None)
    except OSError as error:
        raise InputError(f"cannot read {str(listing)!r}: {error.strerror}") from None
    rows = _columns(text, set(known))
    if rows is None:
        rows = _split(text, "\t")
        missing = sorted(known.keys() - {same_letters(row[0]) for _, row in rows})
        raise InputError(f"{listing}: the folder {missing[0]!r} is not listed ({len(missing)} such folders)")
    lines: dict[str, int] = {}
    for number, row in rows:
        first = lines.setdefault(same_letters(row[0]), number)
        if first != number:
            raise InputError(f"{listing}, line {number}: the folder {row[0]!r} is listed twice, first in line {first}")
    names = tuple(known.get(same_letters(row[0]), row[0]) for _, row in rows)
    if all(len(row) == 1 for _, row in rows):
        return names, None
    return names, tuple(row[1] if len(row) > 1 else name for (_, row), name in zip(rows, names, strict=True))


def _columns(text: str, folders: set[str]) -> list[tuple[int, list[str]]] | None:
    """Return the columns of each line with its number, divided as all folders are listed; None where none does it."""
    dividers = (
        ("\t",) if "\t" in text else ("\t", ",", ";", "=", ":", None)
    )  # without a tab the first takes lines as they are
    for divider in dividers:
        rows = _split(text, divider)
        if folders <= {same_letters(row[0]) for _, row in rows}:
            return rows
    return None


def _split(text: str, divider: str | None) -> list[tuple[int, list[str]]]:
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    most = -1 if divider == "\t" else 1
    return [(number, [part.strip() for part in line.strip().split(divider, most)]) for number, line in lines]


def readable(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes of a name that are no UTF-8 become ``\\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
