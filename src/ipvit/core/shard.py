"""``Shard``: one of several equal shares of the work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from ipvit.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several equal shares of the work.

    Attributes:
        index: which one, from 0.
        count: of how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``: the second of eight shares.

        Raises:
            InputError: it is no such share.

        >>> Shard.parse("2/8")
        Shard(index=1, count=8)
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        number, count = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise InputError(f"a shard is NUMBER/COUNT from 1/8 to 8/8, not {text!r}")
        return cls(number - 1, count)

    def of(self, items: Sequence[T], *, contiguous: bool = False) -> list[T]:
        """Return this shard of the items: every ``count``-th, or a contiguous run of them.

        >>> [Shard(i, 3).of("abcde") for i in range(3)]
        [['a', 'd'], ['b', 'e'], ['c']]
        >>> [Shard(i, 3).of("abcde", contiguous=True) for i in range(3)]
        [['a'], ['b', 'c'], ['d', 'e']]
        """
        if contiguous:
            return list(items[len(items) * self.index // self.count : len(items) * (self.index + 1) // self.count])
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"
