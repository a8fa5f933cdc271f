"""SHA-256 digests of bytes, JSON values and files, as hex digits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["digest_of", "digest_of_file", "digest_of_json"]


def digest_of(data: bytes, digits: int = 64) -> str:
    """Return the first hex digits of the SHA-256 of bytes.

    >>> digest_of(b"photo", 12)
    '55c64d0fcd6f'
    """
    return hashlib.sha256(data).hexdigest()[:digits]


def digest_of_json(value: object, digits: int = 64) -> str:
    """Return the digest of a value that JSON can hold; the order of the keys of a mapping does not matter.

    >>> digest_of_json({"a": 1, "b": [2.5]}) == digest_of_json({"b": [2.5], "a": 1})
    True
    """
    return digest_of(json.dumps(value, sort_keys=True).encode(), digits)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits, without reading it into memory at once.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
