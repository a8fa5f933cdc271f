"""Numbers of things in words."""

from __future__ import annotations


def counted(count: int, what: str, plural: str = "") -> str:
    """Return a number with what it counts, in the singular or the plural, which is with an ``s`` unless it is given.

    >>> counted(1, "model"), counted(1200, "image")
    ('1 model', '1,200 images')
    """
    return f"{count:,} {what if count == 1 else plural or f'{what}s'}"
