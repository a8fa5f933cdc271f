"""Many texts in two blocks of memory."""

from __future__ import annotations

import array
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import cast, overload

import numpy as np

_AT_ONCE = 4096
"""Texts that are made into objects together."""


class Texts(Sequence[str]):
    """Texts that cannot be changed, such as the paths of a million files.

    As objects in a list each takes 90 bytes, and a worker process that only looks at one copies the page of memory that
    it lies in, since Python counts who refers to it. Here a text takes its letters and 8 bytes more, and nothing that
    is looked at is copied. What is equal to a list is equal to these.

    Args:
        texts: of any letters; bytes of a file's name that are no UTF-8 stay as they are.
        stored: in place of them the two blocks of others.

    Example:
        >>> paths = Texts(["cat/1.jpg", "dog/é.jpg"])
        >>> paths[-1], len(paths), paths[:1], paths == ["cat/1.jpg", "dog/é.jpg"]
        ('dog/é.jpg', 2, ['cat/1.jpg'], True)
    """

    __slots__ = ("_block", "_ends")
    __hash__ = None  # pyright: ignore[reportAssignmentType] - as a list

    def __init__(self, texts: Iterable[str] = (), *, stored: tuple[bytes, np.ndarray] | None = None) -> None:
        if stored is not None:
            self._block, self._ends = stored
            return
        block = bytearray()
        lengths = array.array("q", [0])
        left = iter(texts)
        while some := [text.encode("utf-8", "surrogatepass") for text in itertools.islice(left, _AT_ONCE)]:
            block += b"".join(some)
            lengths.extend(map(len, some))
        self._block = bytes(block)
        self._ends = np.cumsum(np.frombuffer(lengths, dtype=np.int64))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one of them, or some as a list."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no text {index} of {len(self)}")
        return self._text(int(self._ends[place]), int(self._ends[place + 1]))

    def __iter__(self) -> Iterator[str]:
        """Go through them in their order."""
        for start in range(0, len(self), _AT_ONCE):
            yield from self._some(start)[1]

    def as_written(self) -> Iterator[bytes]:
        """Yield what Python writes for them, many together, each with a zero behind it: ``b"'a.jpg'\\0'b.jpg'\\0"``."""
        for start in range(0, len(self), _AT_ONCE):
            block, some = self._some(start)
            if block.isascii() and block.isprintable() and "'" not in block and "\\" not in block:
                yield ("'" + "'\0'".join(some) + "'\0").encode()
            else:
                yield "".join([f"{text!r}\0" for text in some]).encode("utf-8", "surrogatepass")

    def _some(self, start: int) -> tuple[str, list[str]]:
        """Return some of them as one text, and one by one."""
        ends = self._ends[start : start + _AT_ONCE + 1].tolist()
        block = self._text(ends[0], ends[-1])
        if not block.isascii():
            return block, list(itertools.starmap(self._text, itertools.pairwise(ends)))
        offset = ends[0]  # a letter is a byte, and to cut is faster than to decode each
        return block, [block[first - offset : last - offset] for first, last in itertools.pairwise(ends)]

    def digests(self) -> np.ndarray:
        """Return ``(N,)`` uint64 digests, the same wherever and whenever they are made; not against forgery."""
        found = np.empty(len(self), np.uint64)
        for start in range(0, len(self), _AT_ONCE):
            ends = self._ends[start : start + _AT_ONCE + 1]
            lengths = np.diff(ends)
            letters = np.frombuffer(self._block, np.uint8, int(ends[-1] - ends[0]), int(ends[0])).astype(np.uint64) + 1
            places = np.arange(len(letters)) - np.repeat(ends[:-1] - ends[0], lengths)
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * _weights(int(lengths.max()))[places])])
            found[start : start + len(lengths)] = np.diff(sums[ends - ends[0]])
        return found

    @property
    def are_unicode(self) -> bool:
        """Whether all of them can be written anywhere: none holds bytes of a file's name that are no UTF-8."""
        if self._block.isascii():  # which copies nothing
            return True
        try:
            self._block.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        """Tell whether others are the same in the same order."""
        if isinstance(other, Texts):
            return self._block == other._block and np.array_equal(self._ends, other._ends)
        if not isinstance(other, list | tuple):
            return NotImplemented
        texts = cast("Sequence[object]", other)
        return len(self) == len(texts) and all(mine == theirs for mine, theirs in zip(self, texts, strict=True))

    def __repr__(self) -> str:
        """Return the first and how many more there are."""
        return f"Texts({self[:3]}{f' and {len(self) - 3:,} more' if len(self) > 3 else ''})"

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process as two blocks."""
        return _restored, (self._block, self._ends)

    def _text(self, first: int, last: int) -> str:
        return self._block[first:last].decode("utf-8", "surrogatepass")


def _weights(count: int) -> np.ndarray:
    """Return odd numbers, one for each place of a letter; numpy's bit generators give the same in every version."""
    return np.random.PCG64(0).random_raw(count) | np.uint64(1)


def _restored(block: bytes, ends: np.ndarray) -> Texts:
    return Texts(stored=(block, ends))
