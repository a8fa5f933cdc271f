"""One computation at a time, and of those that wait only the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class SupersededError(Exception):
    """A newer request of the same kind came while this one waited."""


class Debouncer:
    """Runs one piece of work at a time; waiting work that a newer one of its kind overtook is not done at all."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._counting = threading.Lock()
        self._newest: dict[str, int] = {}

    def alone(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, once nothing else runs."""
        with self._busy:
            return work()

    def newest(self, kind: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, once nothing else runs, if it is still the newest of its kind then.

        Raises:
            SupersededError: it is not.
        """
        with self._counting:
            mine = self._newest[kind] = self._newest.get(kind, 0) + 1
        with self._busy:
            if self._newest[kind] != mine:
                raise SupersededError
            return work()
