"""Versions of installed packages."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


@functools.cache  # each look reads the package's files
def installed_version(package: str) -> str | None:
    """Return the version of a package, by the name that pip knows; None where it is not installed.

    >>> installed_version("no such package") is None
    True
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def digest_of_source() -> str:
    """Return a digest of all files of this package but weights: two versions in development have the same number."""
    found = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".safetensors"):
            found.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
