"""Rows of numbers that many models are held by, in the fewest bytes that keep every bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOST_CODES = 256
"""Different values that a byte tells apart."""


class PackedRows:
    """Rows of float64, read as an array ``(rows, N)`` is: by the number of a row, or by several of them.

    What is right or wrong, and its means over runs, has few values: a byte each says which one. Measured quantities are
    float32 in the records. Any other row stays as it is. What comes back has the same bits.

    Args:
        rows: ``(rows, N)``, or as many arrays ``(N,)``.

    Example:
        >>> packed = PackedRows([[0.0, 1.0, 1 / 3, 0.0] * 100])
        >>> packed[0][:3].tolist(), packed[[0, 0]].shape, packed.nbytes
        ([0.0, 1.0, 0.3333333333333333], (2, 400), 424)
    """

    dtype = np.dtype(np.float64)

    def __init__(self, rows: Iterable[ArrayLike]) -> None:
        self._rows = [_packed(np.ascontiguousarray(row, dtype=np.float64)) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and of columns."""
        return len(self._rows), len(self._rows[0][0]) if self._rows else 0

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(codes.nbytes + (0 if values is None else values.nbytes) for codes, values in self._rows)

    def __getitem__(self, row: int | Sequence[int]) -> NDArray[np.float64]:
        if isinstance(row, int | np.integer):
            codes, values = self._rows[row]
            return codes.astype(np.float64) if values is None else values[codes]
        return np.array([self[one] for one in row]).reshape(len(row), self.shape[1])

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        return (self[row] for row in range(len(self._rows)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[range(len(self))], dtype)


def _packed(row: NDArray[np.float64]) -> tuple[np.ndarray, NDArray[np.float64] | None]:
    """Return a row in fewer bytes, and the values that its bytes stand for, if they do."""
    bits = row.view(np.int64)  # zeros differ in their sign, and one that is missing is equal to itself
    if len(np.unique(bits[: 2 * _MOST_CODES])) <= _MOST_CODES:  # else there is no need to sort all
        values = np.unique(bits)
        if len(values) <= min(_MOST_CODES, len(bits) // 8):
            return np.searchsorted(values, bits).astype(np.uint8), values.view(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = row.astype(np.float32)
        same = np.array_equal(narrow.astype(np.float64).view(np.int64), bits)
    return (narrow, None) if same else (row.copy(), None)
