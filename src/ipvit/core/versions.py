"""Versions of installed packages."""

from __future__ import annotations

import functools
from importlib import metadata


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
