"""Asking for the content of folders before its turn comes: a million files by several processes, few without one.

One process of Python asks the system for 300,000 files in a second and cannot share that out among threads. So small
processes (:mod:`ipvit.data.folder_content`) are handed the folders that come next. Each is asked for two at a time,
whose paths its pipe holds: nobody waits for each other in a circle. Where one fails, what it was asked for is asked
here.
"""

from __future__ import annotations

import array
import collections
import contextlib
import os
import selectors
import stat
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import numpy as np

from ipvit.data import folder_content
from ipvit.data.folder_content import COLUMNS, HEAD, KIND, MARK, REQUEST, content_of

MANY = 100_000
"""Files still to come, as it seems, that are worth the start of processes, each 20 ms of a processor."""

_MOST = 4
"""Processes that a drive in the memory keeps busy, and that are not missed elsewhere."""

_AHEAD, _LONGEST, _PIPE = 2, 4096, 2**20
"""Folders that a process is asked for at a time, bytes of a path that surely fit into its pipe, and bytes of one."""

_PATIENCE = 5.0
"""Seconds after which a process that has said nothing at all is none of ours."""

Content = tuple[bytes, np.ndarray]
"""The sorted names in a folder, each with a zero behind it, and ``(N, 5)`` int64, see :data:`COLUMNS`."""


def content(path: str) -> Content:
    """Return what lies in a folder.

    Raises:
        OSError: it cannot be read.
    """
    names, rows = content_of(path)
    return names, _as_columns(rows)


class FoldersAhead:
    """What lies in folders, which are told of before they are asked for, in the order in which they will be."""

    def __init__(self) -> None:
        self._coming: collections.deque[str] = collections.deque()
        self._asked: dict[str, _Process] = {}
        self._processes: list[_Process] = []
        self._folders = self._files = 0
        self._may_start = _can_start()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _where: TracebackType | None) -> None:
        """End the processes."""
        for process in self._processes:
            process.end()

    def announce(self, paths: Iterable[str]) -> None:
        """Tell of folders that will be asked for before all that are known by now."""
        self._coming.extendleft(reversed(list(paths)))

    def content(self, path: str) -> Content:
        """Return what lies in a folder.

        Raises:
            OSError: it cannot be read.
        """
        if self._may_start and self._folders and self._files * len(self._coming) >= MANY * self._folders:
            self._may_start = False
            self._processes = _started()
        self._ask()
        if path not in self._asked and path in self._coming:  # they are busy with what comes after it
            for process in self._processes:
                process.receive_all()
            self._ask()
        if process := self._asked.pop(path, None):
            found = process.answer(path)
            self._ask()  # before what was found is looked at
        else:
            with contextlib.suppress(ValueError):
                self._coming.remove(path)
            found = None
        names, rows = found or content(path)
        self._folders += 1
        self._files += np.count_nonzero((rows[:, 0] & KIND) == stat.S_IFREG)
        return names, rows

    def _ask(self) -> None:
        """Hand the next folders to processes that can take one."""
        while self._coming and (free := [process for process in self._processes if process.takes_more]):
            process = min(free, key=lambda process: len(process.asked))
            path = self._coming.popleft()
            if process.ask(path):
                self._asked[path] = process


class _Process:
    """A process that is asked for folders and answers in the same order.

    Attributes:
        asked: what it has not answered yet.
        answered: how many folders it told of.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", folder_content.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=_PIPE,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.asked: collections.deque[str] = collections.deque()
        self.answered = 0
        self._answers: dict[str, Content | None] = {}
        self._works, self._greeted = True, False

    @property
    def takes_more(self) -> bool:
        """Whether it may be asked for another folder."""
        return self._works and len(self.asked) < _AHEAD

    def ask(self, path: str) -> bool:
        """Ask for a folder; tell whether that was possible."""
        name = os.fsencode(path)
        if len(name) > _LONGEST:
            return False
        try:
            self._to.write(REQUEST.pack(len(name)) + name)
            self._to.flush()
        except OSError:
            self._works = False
            return False
        self.asked.append(path)
        return True

    def answer(self, path: str) -> Content | None:
        """Return the answer for a folder that it was asked for; None where it gives none."""
        while path not in self._answers:
            self._receive()
        return self._answers.pop(path)

    def receive_all(self) -> None:
        """Wait for all answers, so that it may be asked for more."""
        while self.asked:
            self._receive()

    def _receive(self) -> None:
        try:
            found = self._next() if self._works else None
        except OSError:
            found, self._works = None, False
        self._answers[self.asked.popleft()] = found

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a drive: it ends with that
            self._process.wait(1)

    def _next(self) -> Content | None:
        """Return the next answer, None where the folder cannot be read.

        Raises:
            OSError: none came, or none of ours.
        """
        if not self._greeted:
            self._expect_greeting()
        mark, count, length = HEAD.unpack(self._read(HEAD.size))
        if mark != MARK:
            raise OSError("not an answer")
        if count < 0:
            return None
        found = self._read(length), _as_columns(self._read(count * len(COLUMNS) * 8))
        self.answered += 1
        return found

    def _expect_greeting(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            # what is there is read, not awaited: ours says it at once
            if not selector.select(_PATIENCE) or os.read(self._from.fileno(), len(MARK)) != MARK:
                raise OSError("not our program")
        self._greeted = True

    def _read(self, size: int) -> bytes:
        found = self._from.read(size)
        if len(found) < size:
            raise OSError("it ended")
        return found


def _started() -> list[_Process]:
    """Return as many processes as there are processors, up to some; none where they cannot be started."""
    processes: list[_Process] = []
    with contextlib.suppress(OSError, ValueError):
        for _ in range(min(_cores(), _MOST)):
            processes.append(_Process())  # noqa: PERF401 - those before one that cannot be started are kept
    return processes


def _can_start() -> bool:
    if getattr(sys, "frozen", False) or not sys.executable or sys.getfilesystemencoding() != "utf-8":
        return False
    return os.stat in os.supports_dir_fd and _cores() > 1 and os.path.isfile(folder_content.__file__)  # noqa: PTH113


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_columns(rows: bytes | array.array[int]) -> np.ndarray:
    return np.frombuffer(rows, np.int64).reshape(-1, len(COLUMNS))
