"""The thread that makes records of what was measured and writes them, while the next batch is being measured.

Whoever measures hands over arrays and goes on. What was handed over is taken in one after the other, so that the rows
and the parts are those that a single thread would make.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple

from ipvit.core.files import is_of_the_disk
from ipvit.core.signals import uninterrupted
from ipvit.engine.folders.rows import Measured
from ipvit.engine.loop.failures import FOREIGN, note_failing
from ipvit.engine.store import Store
from ipvit.engine.types import Outcome, Task

ROOM = 8
"""Batches that may wait for the disk; then whoever measures waits for it too."""


class _Job(NamedTuple):
    task: Task
    ids: Sequence[str]
    measured: Measured
    asked: int


class Writer:
    """Writes the records of a sweep, in the order in which they were measured.

    Its queues are :class:`queue.SimpleQueue`: Ctrl-C may come anywhere in the thread that measures, and these take a
    thing in wholly or not at all.

    Args:
        store: where they go; nobody else may write to it before :meth:`close`.
        outcome: where results are counted, and conditions noted whose records cannot stand in a table.
        advance: called with the number of results that were dealt with and the experiment's name.
    """

    def __init__(
        self, store: Store, outcome: Outcome, advance: Callable[[int, str], None] = lambda _count, _what: None
    ) -> None:
        self._store, self._outcome, self._advance = store, outcome, advance
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        self._given_up: SimpleQueue[tuple[Task, list[int]]] = SimpleQueue()
        for _ in range(ROOM):
            self._room.put(None)
        self._refused: dict[int, set[str]] = {}
        self._error: BaseException | None = None
        self._broken = False
        self._thread: threading.Thread | None = None

    def add(self, task: Task, ids: Sequence[str], measured: Measured, asked: int = 0) -> None:
        """Hand over what was measured on a batch; wait where too much is waiting already.

        Args:
            task: whose results.
            ids: of the batch's items.
            measured: arrays that nobody changes any more.
            asked: results that were to be measured, for the progress.

        Raises:
            OSError: what was handed over earlier could not be written.
        """
        self._settle()
        if self._thread is None:  # not before: worker processes that read are forked until then
            thread = threading.Thread(target=self._work, name="ipvit-writer", daemon=True)
            with uninterrupted():
                thread.start()
                self._thread = thread
        self._room.get()
        self._jobs.put(_Job(task, ids, measured, asked))

    def close(self) -> None:
        """Bring everything that was handed over to the disk; nothing may interrupt this.

        Raises:
            OSError: something could not be written.
        """
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        try:
            self._store.flush()
        finally:
            self._settle()  # the first error is the one to tell of

    def _settle(self) -> None:
        """Do what only the thread that measures may do: give conditions up, and raise."""
        while not self._given_up.empty():
            task, numbers = self._given_up.get()
            task.give_up(numbers)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._take_in(job)
                if not self._broken:  # what comes after an error is kept for the last attempt
                    self._store.flush_if_due()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the thread that measures must raise it
                if not self._broken:
                    self._broken, self._error = True, error
            finally:
                self._room.put(None)

    def _take_in(self, job: _Job) -> None:
        """Make rows of a batch; where that fails, of one condition after the other, and give up those that fail alone.

        A condition that was given up may still come: it was measured before that was known.
        """
        refused = self._refused.setdefault(id(job.task), set())
        measured = [(condition, columns) for condition, columns in job.measured if condition.key not in refused]
        errors: dict[str, BaseException] = {}
        try:
            self._add(job, measured)
        except FOREIGN as error:
            if is_of_the_disk(error):
                raise
            errors = {condition.key: error for condition, _ in measured}
        for one in measured if errors and len(measured) > 1 else ():
            try:
                self._add(job, [one])
                del errors[one[0].key]
            except FOREIGN as error:
                if is_of_the_disk(error):
                    raise
                errors[one[0].key] = error
        if errors:
            refused |= errors.keys()
            conditions = [condition for condition, _ in measured]
            self._given_up.put((job.task, note_failing(job.task, conditions, errors, self._outcome)))
        self._advance(job.asked, job.task.experiment.name)

    def _add(self, job: _Job, measured: Measured) -> None:
        if measured:
            self._store.add(job.task.identity, job.task.model.name, job.ids, measured)
            self._outcome.measured += len(job.ids) * len(measured)
