"""The log of a run: ``log.txt`` in its folder, one line for each thing that happened, with the time."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from ipvit.errors import printable

LOG = "log.txt"

_logger = logging.getLogger("ipvit")
_MOST_WAITING = 200


class _Line(logging.Formatter):
    """The time and the text on one line, which no terminal obeys."""

    def __init__(self, *, time: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s" if time else "ipvit: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Quietly(logging.StreamHandler[TextIO]):
    """Writes as far as it can."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """A full disk is told of by what had to be written."""


class _Waiting(logging.Handler):
    """Keeps what is logged before there is a folder to log into."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        del self.records[: len(self.records) - _MOST_WAITING + 1]
        self.records.append(record)


_waiting = _Waiting()


def log(text: str, level: int = logging.INFO) -> None:
    """Write a sentence into the log of the run: into the one that is open, or else into the next one."""
    _logger.log(level, "%s", text)


def begin(text: str, *, verbose: bool = False) -> None:
    """Begin the log of a command: what it was called with comes first.

    Args:
        text: the command line.
        verbose: what is logged is also shown on standard error.
    """
    _waiting.records.clear()
    for handler in [*_logger.handlers]:
        _logger.removeHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    _logger.addHandler(_waiting)
    if verbose:
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(_Line(time=False))
        _logger.addHandler(shown)
    log(text)


@contextlib.contextmanager
def logged_into(folder: Path) -> Generator[None]:
    """Append what is logged to ``log.txt`` of a run folder, and what waited for it; a full disk is no failure of it."""
    try:  # a link in the folder may lead anywhere
        number = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError:
        yield
        return
    file = os.fdopen(number, "a", encoding="utf-8", errors="backslashreplace")
    handler = _Quietly(file)
    handler.setFormatter(_Line(time=True))
    before = _logger.level
    _logger.setLevel(logging.INFO)
    for record in _waiting.records:
        handler.handle(record)
    _waiting.records.clear()
    _logger.removeHandler(_waiting)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(before)
        with contextlib.suppress(OSError):
            file.close()
