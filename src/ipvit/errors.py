"""The one error a user's mistake raises: the command line prints its text on one line and exits with code 2."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

V = TypeVar("V")


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line that says what is wrong, where, and what would be right; lines of another library's message
    in it are joined.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(filter(None, map(str.strip, str(message).splitlines()))))


class CombinedInputError(InputError):
    """Several things are wrong or missing, one line for each, the first the most telling."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


class ParametersError(InputError):
    """The parameters of something that the user makes cannot be used.

    Args:
        what: is made.
        fault: what is wrong.
    """

    def __init__(self, what: str, fault: str) -> None:
        super().__init__(f"{what}: {fault}")
        self.fault = fault


class UnknownNameError(InputError, KeyError):
    """There is nothing of a name among what is looked up by names."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError's would be the repr


class DownloadError(InputError):
    """Something cannot be fetched from where it is published; the message says how it can be had."""


class UnavailableWeightsError(DownloadError):
    """The weights of a network cannot be downloaded.

    Args:
        name: of the network.
        reason: why not.
        instead: what to do.
    """

    def __init__(self, name: str, reason: str, instead: str) -> None:
        super().__init__(f"cannot download the weights of {name} ({reason}); {instead}")
        self.reason = reason


FOREIGN_ERRORS = (
    TypeError,
    ValueError,
    RuntimeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    AttributeError,
)
"""What other libraries raise on values they cannot use: a name, an option, a file's content.

For ``except`` round one call into such a library, whose arguments a user chose. Faults of the machine are not among
them (``OSError``, ``MemoryError``), nor is ``KeyboardInterrupt``: where a call can meet those, it says so itself.
"""


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return `` Did you mean 'a' or 'b'?`` for the known words close to ``word``, or an empty string."""
    close = closest(word, known, limit)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def closest(word: str, known: Iterable[str], limit: int = 3, likeness: float = 0.6) -> list[str]:
    """Return the known words that are at least so much like ``word``, from 0 to 1, the closest first."""
    return difflib.get_close_matches(word, list(known), n=limit, cutoff=likeness)


class ByName(dict[str, V]):
    """A dictionary of results whose lack of a name is an :class:`UnknownNameError` that says which there are.

    Args:
        found: the results.
        what: they are, in the singular.
        where: they are from.
    """

    def __init__(self, found: Mapping[str, V], what: str, where: str) -> None:
        super().__init__(found)
        self._what, self._where = what, where

    def __missing__(self, name: object) -> V:
        known = f"there are: {', '.join(self)}" if self else "there are none"
        raise UnknownNameError(
            f"{self._where} has no {self._what} {shown(name)}; {known}.{did_you_mean(str(name), self)}"
        )


def printable(text: str) -> str:
    """Return text on one line that a terminal shows and does not obey: escapes and control characters spelled out.

    >>> printable("red \\x1b[31m name")
    'red \\\\x1b[31m name'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), " ".join(text.split()))


def error_line(error: object, most: int = 200, *, named: bool = False) -> str:
    """Return what an error says on one line, cut where it is long; its type where it says nothing.

    Args:
        error: an exception, or the reason that it gives.
        most: characters.
        named: the type stands before the text.

    >>> error_line(ValueError("cannot\\n  read")), error_line(KeyError()), error_line(ValueError("no"), named=True)
    ('cannot read', 'KeyError', 'ValueError: no')
    """
    kind, text = type(error).__name__, printable(str(error))
    if named and text:
        text = f"{kind}: {text}"
    text = text or kind
    return text if len(text) <= most else f"{text[: most - 3]}..."


def harmless(text: str) -> str:
    """Return text of as many characters in which those that control a terminal, or no page may hold, are replaced."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069\\ufffe\\uffff]")
"""Control characters but line ends and tabs, halves of characters, and what turns the direction of reading."""


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: its ``repr`` on one line, cut where it is long."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = most
    return printable(brief.repr(value))
