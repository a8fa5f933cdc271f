"""The one error a user's mistake raises: the command line prints its text on one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line that says what is wrong, where, and what would be right.
    """


class SeveralErrors(InputError):
    """Several things are wrong or missing, one line for each, the first the most telling."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return `` Did you mean 'a' or 'b'?`` for the known words close to ``word``, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=limit, cutoff=0.6)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(name) for name in close) + "?"
