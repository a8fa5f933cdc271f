"""Which batches this process measures: its own share in turn, then what slower processes have not begun.

A batch is a fixed unit. Whoever is about to measure one claims it from a counter that all processes of the run share,
so each is measured once, and the last batches are measured by whoever has time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np


class Claims:
    """The batches of one sweep, as one process sees them.

    Args:
        batches: positions of the items of each batch.
        own: numbers of those that are this process's share, in their order.
        others: numbers of those that are another's, and may be claimed once this process has nothing left to do.
        first: tells whether this process is the first to claim a number; asked at most once for each.
        left: returns how many batches nobody has claimed.
        size: number of processes.
    """

    def __init__(
        self,
        batches: Sequence[np.ndarray],
        own: Sequence[int],
        others: Sequence[int] = (),
        first: Callable[[int], bool] = lambda _: True,
        left: Callable[[], int] = lambda: 0,
        size: int = 1,
    ) -> None:
        self._batches, self._own, self._others = batches, own, others
        self._first, self._left, self._size = first, left, size
        self._mine: dict[int, bool] = {}
        numbers = range(len(batches))
        self._number = np.zeros(1 + int(self._positions(numbers).max(initial=0)), dtype=np.int32)
        for number in numbers:
            self._number[batches[number]] = number
        self.helping = False
        """Whether this process has measured its share, and is at what was another's."""

    @property
    def selected(self) -> int:
        """How many items all batches have, also those that are measured already."""
        return sum(map(len, self._batches))

    @property
    def own(self) -> np.ndarray:
        """Positions of the items of this process's share."""
        return self._positions(self._own)

    @property
    def possible(self) -> np.ndarray:
        """Positions of all items that this process may come to measure."""
        return self._positions([*self._own, *self._others])

    def rounds(self) -> Iterator[list[np.ndarray]]:
        """Yield batches to read: those of this process's share, then, time and again, some that nobody has begun.

        What is read is measured only where :meth:`begin` says so: meanwhile another may have claimed it.
        """
        if self._own:
            yield [self._batches[number] for number in self._own]
        self.helping = True
        waiting = list(self._others)
        while waiting:
            wanted = max(1, self._left() // (2 * self._size))  # fewer and fewer, so that all end together
            claimed: list[np.ndarray] = []
            while waiting and len(claimed) < wanted:
                number = waiting.pop()  # from the end: its process begins with the first
                if self._claim(number):
                    claimed.append(self._batches[number])
            if claimed:
                yield claimed[::-1]

    def begin(self, positions: Sequence[int] | np.ndarray) -> bool:
        """Claim the batch that some items are of; tell whether it is this process that measures it.

        Args:
            positions: of items of one batch, which may come several times; none are nobody's.
        """
        return len(positions) > 0 and self._claim(int(self._number[positions[0]]))

    def _positions(self, numbers: Iterable[int]) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype=np.int64), *(self._batches[number] for number in numbers)])

    def _claim(self, number: int) -> bool:
        if number not in self._mine:
            self._mine[number] = self._first(number)
        return self._mine[number]
