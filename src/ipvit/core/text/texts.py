"""Many texts in two blocks of memory."""

from __future__ import annotations

import array
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import cast, overload

import numpy as np

_AT_ONCE = 4096
"""Texts that are made into objects together."""

_DIGESTED = 512
"""Texts that are digested together: each letter takes fifty bytes on the way."""

_Block = bytes | bytearray

_PLAIN = bytes({0, *range(ord(" "), ord("~") + 1)} - set(b"'\\"))
"""What Python writes between quotes as it is, and the zero behind each text."""


class Texts(Sequence[str]):
    """Texts that cannot be changed, such as the paths of a million files.

    As objects in a list each takes 90 bytes, and a worker process that only looks at one copies the page of memory that
    it lies in, since Python counts who refers to it. Here a text takes its letters and 9 bytes more, and nothing that
    is looked at is copied. What is equal to a list is equal to these.

    Args:
        texts: of any letters; bytes of a file's name that are no UTF-8 stay as they are.
        stored: in place of them the two blocks of others: the texts, each with a zero behind it, and where each begins
            and the last one ends, ``(N + 1,)`` int64.

    Example:
        >>> paths = Texts(["cat/1.jpg", "dog/é.jpg"])
        >>> paths[-1], len(paths), paths[:1], paths == ["cat/1.jpg", "dog/é.jpg"]
        ('dog/é.jpg', 2, ['cat/1.jpg'], True)
    """

    __slots__ = ("_block", "_ends")
    __hash__ = None  # pyright: ignore[reportAssignmentType] - as a list

    def __init__(self, texts: Iterable[str] = (), *, stored: tuple[_Block, np.ndarray] | None = None) -> None:
        if stored is not None:
            self._block, self._ends = stored
            return
        block = bytearray()
        lengths = array.array("q", [0])
        left = iter(texts)
        while some := [text.encode("utf-8", "surrogatepass") for text in itertools.islice(left, _AT_ONCE)]:
            block += b"\0".join(some) + b"\0"
            lengths.extend([len(text) + 1 for text in some])
        self._block = block
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
            yield from self._some(start)

    def as_written(self) -> Iterator[bytes]:
        """Yield what Python writes for them, many together, each with a zero behind it: ``b"'a.jpg'\\0'b.jpg'\\0"``."""
        for start in range(0, len(self), _AT_ONCE):
            block, count = self._stretch(start)
            if block.count(0) == count and not block.translate(None, _PLAIN):
                yield b"'" + block.replace(b"\0", b"'\0'")[:-1]
            else:
                yield "".join([f"{text!r}\0" for text in self._some(start)]).encode("utf-8", "surrogatepass")

    def digests(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return uint64 digests of all or some, the same wherever and whenever they are made; not against forgery."""
        last = len(self) if last is None else min(last, len(self))
        found = np.empty(last - first, np.uint64)
        for start in range(first, last, _DIGESTED):
            ends = self._ends[start : min(start + _DIGESTED, last) + 1]
            letters = np.frombuffer(self._block, np.uint8, int(ends[-1] - ends[0]), int(ends[0])).astype(np.uint64) + 1
            lengths = np.diff(ends)
            places = np.arange(len(letters)) - np.repeat(ends[:-1] - ends[0], lengths)
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * _weights(int(lengths.max()))[places])])
            found[start - first :][: len(lengths)] = np.diff(sums[ends - ends[0]])
        return found

    def digest(self) -> bytes:
        """Return the SHA-256 of all of them, each with a zero behind it."""
        return hashlib.sha256(self._block).digest()

    def _stretch(self, start: int) -> tuple[bytes, int]:
        """Return some of them as one block, and how many."""
        ends = self._ends[start : start + _AT_ONCE + 1]
        return bytes(memoryview(self._block)[int(ends[0]) : int(ends[-1])]), len(ends) - 1

    def _some(self, start: int) -> list[str]:
        block, count = self._stretch(start)
        if block.count(0) == count:
            return block.decode("utf-8", "surrogatepass").split("\0")[:-1]
        ends = self._ends[start : start + count + 1].tolist()  # some text holds a zero itself
        return list(itertools.starmap(self._text, itertools.pairwise(ends)))

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
        return self._block[first : last - 1].decode("utf-8", "surrogatepass")


def _weights(count: int) -> np.ndarray:
    """Return odd numbers, one for each place of a letter; numpy's bit generators give the same in every version."""
    return np.random.PCG64(0).random_raw(count) | np.uint64(1)


def _restored(block: _Block, ends: np.ndarray) -> Texts:
    return Texts(stored=(block, ends))
