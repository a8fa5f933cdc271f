"""What a line of text must not end within: a number and its unit, an interval, a p-value."""

from __future__ import annotations

import re

_SPACES = re.compile(r"(?<=\d) (?=%)|(?<=\d,) (?=[-+]?\d[\d.]*\])|(?<=\bp) (?=[<=] )|(?<=\bp [<=]) (?=[\d.])")


def glued(text: str, space: str = "\u00a0") -> str:
    """Return a text with other spaces where no line may end.

    >>> glued("a 5 % [1.2, -3.0], p < 0.001, b, 3", "_")
    'a 5_% [1.2,_-3.0], p_<_0.001, b, 3'
    """
    return _SPACES.sub(space, text)
