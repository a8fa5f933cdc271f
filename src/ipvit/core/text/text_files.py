"""Text files that people bring, in UTF-8 with or without a mark or in UTF-16; others are refused with their line."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable
from pathlib import Path

from ipvit.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's mark does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "cp1252"
"""What Windows calls Latin-1."""


def read_text(path: Path, fits: Callable[[str], bool] = lambda _: False) -> str:
    """Return the text of a file, its line ends as ``\\n``.

    UTF-8 and UTF-16 tell themselves apart. A file in Latin-1 could as well be in another encoding of one byte a letter:
    it is read only where its content shows that it is one.

    Args:
        path: the file.
        fits: tells of the text read as Latin-1 whether it is right, for example since it names folders that there are.

    Raises:
        OSError: it cannot be read.
        InputError: it is no text, or in an encoding that is not known; names file, line and encoding.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), _without_mark(data))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = data.decode(_WESTERN, "replace")
        if encoding != "utf-8" or not fits(_plain(text)):
            raise _refused(path, data, error, encoding) from None
    if "\0" in text:
        raise InputError(f"{str(path)!r}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: not a text file")
    return _plain(text)


def same_letters(text: str) -> str:
    """Return text in one spelling: an accented letter is one character, not a letter and an accent (NFC).

    >>> same_letters("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _without_mark(data: bytes) -> str:
    """Tell UTF-16 without a mark by its empty bytes: every other one of plain letters."""
    start = data[:200]
    if len(start) >= 4 and len(start) % 2 == 0:
        if not any(start[1::2]) and all(start[::2]):
            return "utf-16-le"
        if not any(start[::2]) and all(start[1::2]):
            return "utf-16-be"
    return "utf-8"


def _refused(path: Path, data: bytes, error: UnicodeDecodeError, encoding: str) -> InputError:
    line = data[: error.start].count(b"\n") + 1
    looks = "; it looks like Latin-1" if encoding == "utf-8" and b"\0" not in data else ""
    name = encoding.removesuffix("-sig").removesuffix("-le").removesuffix("-be").upper()
    what = f"not a text file in {name} (byte {data[error.start]:#04x}){looks}"
    return InputError(f"{str(path)!r}, line {line}: {what}: save it as UTF-8")
