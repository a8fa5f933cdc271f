"""SHA-256 digests of bytes, JSON values and files, as hex digits."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlparse

__all__ = ["digest_of", "digest_of_file", "digest_of_json", "stated_hash"]

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?=\.)")
"""The convention of PyTorch's zoos: ``resnet50-0676ba61.pth`` states the first hex digits of the file's SHA-256."""


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


def stated_hash(url: str) -> str | None:
    """Return the hex digits of the SHA-256 that a file's name states, or None.

    >>> stated_hash("https://download.pytorch.org/models/resnet50-0676ba61.pth")
    '0676ba61'
    """
    found = HASH_IN_NAME.search(Path(urlparse(url).path).name)
    return found[1] if found else None
