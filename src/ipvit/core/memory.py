"""Batches that do not fit into the memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sized
from typing import TypeVar

Batch = TypeVar("Batch", bound=Sized)
Result = TypeVar("Result")


@dataclasses.dataclass
class Fitting:
    """What is known of how large a batch may be; it is learnt from those that did not fit.

    Attributes:
        most: larger ones are halved before they are tried.
        too_large: the largest batch that did not fit; 0 where all did.
    """

    most: float = math.inf
    too_large: int = 0

    def exceeded(self, size: int) -> None:
        """Note that a batch of a size did not fit."""
        self.most = min(self.most, (size + 1) // 2)
        self.too_large = max(self.too_large, size)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the batch was too large for the memory."""
    import torch  # joining and reporting know of batches that did not fit, and need no network

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def halving(
    compute: Callable[[Batch], Result],
    batch: Batch,
    halves: Callable[[Batch], tuple[Batch, Batch]],
    joined: Callable[[Result, Result], Result],
    fitting: Fitting | None = None,
) -> Result:
    """Return what is computed from a batch; where it does not fit into the memory, from its halves, and theirs.

    Args:
        compute: takes a batch of any size.
        batch: as large as wanted.
        halves: divides a batch of two or more.
        joined: puts the results of two halves together.
        fitting: what earlier batches have taught, and these will teach.

    Raises:
        RuntimeError, MemoryError: a batch of one is too large.
    """
    fitting = Fitting() if fitting is None else fitting
    if len(batch) <= fitting.most:
        try:
            return compute(batch)
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        import torch

        fitting.exceeded(len(batch))
        torch.cuda.empty_cache()  # after the block above: its error holds on to the tensors of the failed attempt
    first, second = (halving(compute, part, halves, joined, fitting) for part in halves(batch))
    return joined(first, second)
