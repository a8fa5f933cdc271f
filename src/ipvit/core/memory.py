"""Batches that do not fit into the memory."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TypeVar

import torch

Batch = TypeVar("Batch", bound=Sized)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the batch was too large for the memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def halving(
    compute: Callable[[Batch], Result],
    batch: Batch,
    halves: Callable[[Batch], tuple[Batch, Batch]],
    joined: Callable[[Result, Result], Result],
) -> Result:
    """Return what is computed from a batch; where it does not fit into the memory, from its halves, and theirs.

    Args:
        compute: takes a batch of any size.
        batch: as large as wanted.
        halves: divides a batch of two or more.
        joined: puts the results of two halves together.

    Raises:
        RuntimeError, MemoryError: a batch of one is too large.
    """
    try:
        return compute(batch)
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()  # after the block above: its error holds on to the tensors of the failed attempt
    first, second = halves(batch)
    return joined(halving(compute, first, halves, joined), halving(compute, second, halves, joined))
