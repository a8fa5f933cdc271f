"""Worker processes that read: in order, by shared memory or by pipe, and one line where one of them dies or hangs.

Measuring and training read by the same ones. A worker hands over whole batches, each view of them as one tensor: every
tensor that crosses by shared memory costs this process an open file while it is in use, and 1,024 may be open.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
import torch.utils.data
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import signal_handling

from ipvit.errors import InputError

AHEAD = 2
"""Batches that a worker reads ahead."""

SHARED_MEMORY = Path("/dev/shm")
"""Where worker processes on Linux leave what they hand over; a container often has 64 MB of it."""

STUCK = 900
"""Seconds after which a batch that does not come is given up."""


class WorkerError(OSError):
    """A worker process died or hangs; the text is one line."""


class WorkerDiedError(WorkerError):
    """A worker process was killed, or ended by itself."""


class Parcel(Protocol):
    """What a worker hands over."""

    def map_tensors(self, change: Callable[[Any], Any]) -> Self:
        """Return the same with ``change`` applied to each of its tensors, which may be arrays meanwhile."""
        ...


Job = TypeVar("Job")
Made = TypeVar("Made")
Result = TypeVar("Result", bound=Parcel)


class Loader(Generic[Job, Result]):
    """Worker processes that make one parcel of each job and stay alive from one list of jobs to the next.

    Args:
        work: makes the parcel; it travels to each worker process once.
        name: of what is read, for messages.
        workers: their number; 0 works in this process.
        pin_memory: hand the tensors over in memory that a GPU can copy from by itself.
        through_pipes: hand them over without shared memory, a little slower.
    """

    def __init__(
        self,
        work: Callable[[Job], Result],
        name: str,
        *,
        workers: int,
        pin_memory: bool = False,
        through_pipes: bool = False,
    ) -> None:
        self._name, self._pipes = name, through_pipes
        self._work, self._workers = _Work(work, through_pipes), workers
        self._pin = pin_memory and not through_pipes
        self._jobs: list[Job] = []
        self._loader: DataLoader | None = None

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield the parcel of each job, in their order; a list that is given up half-way does no harm.

        Raises:
            InputError: as it was raised in a worker.
            WorkerError: a worker was killed for the second time, or hangs.
        """
        made, begun = 0, False

        def begin() -> Iterator[Result]:
            nonlocal begun
            if begun or self._loader is None:
                self._loader = self._open()
            begun = True
            self._jobs[:] = jobs[made:]
            return parcels(self._loader, self._name, self._pipes)

        def counted() -> Iterator[Result]:
            nonlocal made
            for parcel in replacing(begin):
                made += 1
                yield parcel

        return counted()

    def _open(self) -> DataLoader:
        return open_workers(
            self._work, workers=self._workers, jobs=self._jobs, pin_memory=self._pin, persistent=self._workers > 0
        )


def open_workers(
    source: torch.utils.data.Dataset,
    *,
    workers: int,
    jobs: list | None = None,
    pin_memory: bool = False,
    persistent: bool = False,
    ahead: int = AHEAD,
    start_method: str | None = None,
) -> DataLoader:
    """Return torch's loader as everything here uses it: whole batches out of the workers, one thread each.

    Args:
        source: makes a batch of a job, or all of them where it is an ``IterableDataset``.
        workers: processes; 0 works in this process.
        jobs: what the source is asked for; read anew each time.
        pin_memory: for fast copies to a GPU; the batches have a ``pin_memory`` method.
        persistent: keep the workers from one use to the next.
        ahead: batches that each worker makes before they are asked for.
        start_method: of the workers, as in :mod:`multiprocessing`; None for the platform's way.
    """
    return DataLoader(
        source,
        batch_size=None,
        sampler=jobs,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        pin_memory=pin_memory,
        persistent_workers=persistent,
        timeout=STUCK if workers else 0,
        collate_fn=_unchanged,
        worker_init_fn=one_thread,
        multiprocessing_context=start_method if workers else None,
        generator=torch.Generator(),  # of its own: the loader draws a seed, and the user's random state is not ours
    )


def parcels(loader: DataLoader, name: str, through_pipes: bool) -> Iterator[Any]:
    """Yield what a loader's workers hand over.

    Raises:
        InputError: as it was raised in a worker, without that process's traceback.
        WorkerError: a worker died, or none gave anything for too long.
    """
    with explained(name):
        for parcel in _told_while_waiting(loader) if loader.num_workers else loader:
            if isinstance(parcel, Refusal):
                raise InputError(parcel.text)
            yield parcel.map_tensors(torch.from_numpy) if through_pipes else parcel


def replacing(begin: Callable[[], Iterator[Made]], notes: list[str] | None = None) -> Iterator[Made]:
    """Yield what is begun; where a worker process is killed, begin again once: with what is still wanted.

    Args:
        begin: starts worker processes that make what is not made yet.
        notes: what the user should know, to be filled.

    Raises:
        WorkerError: a worker was killed for the second time, or hangs.
    """
    try:
        yield from begin()
        return
    except WorkerDiedError as error:
        if notes is not None:
            notes.append(f"{str(error).partition(':')[0]}, and was replaced")
    yield from begin()


def _told_while_waiting(loader: DataLoader) -> Iterator[Any]:
    """Yield what a loader yields; the death of a worker is told while this process waits for one, and only then.

    torch's own alarm rings wherever this process is just then: in the middle of a network's forward pass, whose failure
    it would seem to be.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield from loader  # there torch has no alarm
        return

    tell = getattr(signal_handling, "_error_if_any_worker_fails", lambda: None)

    def alarm(_number: int, _frame: FrameType | None) -> None:
        tell()

    @contextmanager
    def waiting() -> Iterator[None]:
        signal.signal(signal.SIGCHLD, alarm)
        try:
            tell()  # of one that died before
            yield
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    before = signal.getsignal(signal.SIGCHLD)
    try:
        with waiting():
            source = iter(loader)
        while True:
            with waiting():
                parcel = next(source, None)
            if parcel is None:
                return
            yield parcel
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say in one line what became of a worker process; torch notices its death wherever this process is just then."""
    try:
        yield
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # what a worker made went with it
        if "in DataLoader worker process" in str(error):
            raise
        raise _died(name, "it exited unexpectedly") from error
    except RuntimeError as error:
        said = str(error)
        if "DataLoader timed out" in said:
            raise WorkerError(
                f"the processes that read {name} gave nothing for {STUCK} seconds; run it again with fewer workers, or "
                "with workers: 0, which reads in this process"
            ) from error
        if "DataLoader worker" in said and ("exited unexpectedly" in said or "killed by signal" in said):
            raise _died(name, " ".join(said.split())[:120]) from error
        raise


def _died(name: str, how: str) -> WorkerDiedError:
    return WorkerDiedError(
        f"a process that reads {name} died ({how}): most likely the memory was full; fewer workers, or smaller "
        "batches, need less, and with 0 workers this process reads; what is finished is kept, and the same command "
        "goes on from there"
    )


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a worker hands over instead of raising InputError: torch would put its own traceback into the text."""

    text: str


class _Work(torch.utils.data.Dataset[Any]):
    def __init__(self, work: Callable[[Any], Any], through_pipes: bool) -> None:
        self._work, self._pipes = work, through_pipes

    def __getitem__(self, job: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            made = self._work(job)
        except InputError as error:
            return Refusal(str(error))
        return made.map_tensors(Tensor.numpy) if self._pipes else made


class Stream(IterableDataset[Any]):
    """What every worker gets of a function that yields its share of the parcels.

    Args:
        make: yields the parcels of this process, see ``torch.utils.data.get_worker_info``.
        through_pipes: hand tensors over as arrays.
    """

    def __init__(self, make: Callable[[], Iterator[Any]], through_pipes: bool) -> None:
        self._make, self._pipes = make, through_pipes

    def __iter__(self) -> Iterator[Any]:
        try:
            for made in self._make():
                yield made.map_tensors(Tensor.numpy) if self._pipes else made
        except InputError as error:
            yield Refusal(str(error))


def pinned(tensor: Any) -> Any:
    """Return a tensor in memory that a GPU copies from by itself; anything else as it is."""
    return tensor.pin_memory() if isinstance(tensor, Tensor) else tensor


def shared_memory_short(batch: int, workers: int) -> str:
    """Return what to tell the user where the workers' batches do not fit into shared memory; empty where they do.

    A worker that writes beyond it dies without a word, or waits for ever.

    Args:
        batch: bytes of the largest one.
        workers: processes.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return ""
    wanted, free = workers * (AHEAD + 1) * batch, shutil.disk_usage(SHARED_MEMORY).free
    if wanted <= 0.8 * free:
        return ""
    return (
        f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, {workers} workers want {wanted / 1e6:,.0f}: pictures go by "
        "pipe instead, a little slower (docker run --shm-size=8g)"
    )


def one_thread(_: int) -> None:
    """Let a worker process compute with one thread; the ``worker_init_fn`` of a DataLoader."""
    torch.set_num_threads(1)  # several decoders with several threads each would fight over the cores
    if (cv2 := sys.modules.get("cv2")) is not None:  # imported where a transform needs it
        cv2.setNumThreads(0)


def _unchanged(parcel: Any) -> Any:
    return parcel
