"""Several processes on one study: which shard each of them measures, and what they tell each other.

Every process measures whole batches, the same ones that a single process would form, so that the records are the same
bit for bit however many there are. They meet twice, before the first batch and after the last; while they measure,
nobody waits for anybody. A counter that the first process keeps says who measures which batch.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from ipvit.core.shard import Shard
from ipvit.errors import InputError, error_line

T = TypeVar("T")

_PATIENCE = datetime.timedelta(days=30)
"""How long a process waits for the others: the slowest has a whole study to measure."""


class ProcessLostError(ConnectionError):
    """Another process of the run is gone."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this run is gone; what is measured is kept, and the same command goes on from there, "
            "with any number of processes"
        )


class ProcessGroup:
    """The processes of one run; by default there is one.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine.
        local_size: number of processes on its machine.
        group: their gloo process group; None where there is one process.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1, group: Any = None
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._group = group
        self._store: Any = None
        self._counters = 0

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes what there is one of: manifest, tables, report."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The shard of the work that this process does."""
        return Shard(self.rank, self.size)

    def collect(self, value: T) -> list[T]:
        """Return every process's value, in the order of the ranks.

        Raises:
            ProcessLostError: one of them is gone.
        """
        if self._group is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _losses():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def counter(self, count: int) -> tuple[Callable[[int], bool], Callable[[], int]]:
        """Return what tells whether this process is the first to ask for a thing, and how many are left.

        All processes call this together; what it returns they call as they like.

        Args:
            count: of the things, the same in all processes.

        Returns:
            A function of a thing's number, to be called once by each process, and one that returns how many nobody has
            asked for. They raise :class:`ProcessLostError` where the first process is gone.
        """
        if self._group is None:
            return (lambda _: True), (lambda: 0)
        self._counters += 1
        name = f"ipvit/{self._counters}"
        store = self._shared_store()

        def first(number: int) -> bool:
            with _losses():
                if store.add(f"{name}/{number}", 1) > 1:
                    return False
                store.add(name, 1)
                return True

        def left() -> int:
            with _losses():
                return count - store.add(name, 0)

        return first, left

    def _shared_store(self) -> Any:
        """Return the numbers that all processes see; the first process keeps them."""
        if self._store is None:
            import torch.distributed as dist

            host, port = os.environ.get("MASTER_ADDR", "localhost"), 0

            def join(port: int) -> Any:
                with _losses("the processes of this run cannot reach each other"):
                    return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage] - it is documented
                        host, port, is_master=port == 0, wait_for_workers=False
                    )

            if self.is_main_process:
                self._store = join(0)
                port = self._store.port
            (port, *_) = self.collect(port)
            if not self.is_main_process:
                self._store = join(port)
        return self._store

    def main_process_first(self, work: Callable[[], T], *, per_machine: bool = True) -> T:
        """Do work in one process, of each machine or of all, then in the others, which find what the first one left.

        Raises:
            InputError: one of them could not; all stop.
            ProcessLostError: one of them is gone.
        """
        if self._group is None:
            return work()
        done: list[T] = []
        first = self.local_rank == 0 if per_machine else self.is_main_process
        for turn in (first, not first):
            self._together(lambda: done.append(work()), turn)
        return done[0]

    def done_once(self, work: Callable[[], T], check: Callable[[T], object] = lambda _: None) -> T:
        """Do work in the first process, and give every other one a copy of what it returns.

        What cannot travel is made by each process, the first one before the others.

        Args:
            work: to be done.
            check: raises InputError in another process that cannot use the copy.

        Raises:
            InputError: one of them could not; all stop.
            ProcessLostError: one of them is gone.
        """
        if self._group is None:
            return work()
        import torch.distributed as dist

        done: list[T] = []
        self._together(lambda: done.append(work()), self.is_main_process)
        packed = [_packed(done[0]) if self.is_main_process else b""]
        with _losses():
            dist.broadcast_object_list(packed, 0, group=self._group)

        def take() -> None:
            done.extend(_unpacked(packed[0]) or [work()])
            check(done[0])

        self._together(take, not self.is_main_process)
        return done[0]

    def assert_same_on_all_ranks(self, what: str, value: object) -> None:
        """Make sure that all processes have the same value.

        Raises:
            InputError: they have not.
        """
        if len({repr(other) for other in self.collect(value)}) > 1:
            self._stop(f"the processes of this run do not see the same {what}")

    def _together(self, work: Callable[[], object], mine: bool) -> None:
        error = ""
        if mine:
            try:
                work()
            except InputError as mistake:
                error = str(mistake)
        errors = [text for text in self.collect(error) if text]
        if errors:
            self._stop(errors[0])

    def _stop(self, error: str) -> None:
        if self.is_main_process:
            raise InputError(error)
        raise SystemExit(2)  # one process says it


def _packed(value: object) -> bytes:
    """Return an object as bytes; nothing where it cannot travel, as an open connection cannot."""
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever the code of an object raises
        return b""


def _unpacked(data: bytes) -> list[Any]:
    """Return the object that another process of this run has sent; none where it is of code that is not known here."""
    try:
        return [pickle.loads(data)] if data else []  # noqa: S301 - from a process of the same run
    except Exception:  # noqa: BLE001 - likewise
        return []


@contextlib.contextmanager
def launched() -> Generator[ProcessGroup]:
    """Yield the processes that ``torchrun`` or ``accelerate launch`` started together; one where nobody did.

    Raises:
        ConnectionError: they cannot reach each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ProcessGroup()
        return
    import torch.distributed as dist

    ours = not dist.is_initialized()
    if ours:
        with _losses("the processes of this run cannot reach each other"):
            dist.init_process_group("gloo", timeout=_PATIENCE)
    group = dist.group.WORLD if ours else dist.new_group(backend="gloo", timeout=_PATIENCE)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), local_rank, local_size, group)
    finally:
        if ours:
            dist.destroy_process_group()


@contextlib.contextmanager
def _losses(text: str = "") -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        if text:
            raise ConnectionError(f"{text}: {error_line(error)}") from None
        raise ProcessLostError from None
