"""What was measured on a batch comes back from the device in one copy: the processor waits once, not once a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Columns = Mapping[str, Tensor | np.ndarray]


def read_back(measured: Sequence[Columns]) -> list[dict[str, np.ndarray]]:
    """Return columns as arrays of their own, with the same values and types.

    They are written later than they were measured, so what measured them may go on with its own.

    Args:
        measured: per condition, tensors on any device and arrays.
    """
    elsewhere: dict[int, Tensor] = {}
    for columns in measured:
        for values in columns.values():
            if isinstance(values, Tensor) and values.device.type != "cpu":
                elsewhere[id(values)] = values
    there = dict(zip(elsewhere, _in_one_copy(list(elsewhere.values())), strict=True))
    return [
        {name: there[id(values)] if id(values) in there else _array(values) for name, values in columns.items()}
        for columns in measured
    ]


def _array(values: Any) -> np.ndarray:
    return np.array(values.detach().numpy() if isinstance(values, Tensor) else values)


def _in_one_copy(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return tensors of one device as arrays; their bytes are put together there."""
    if not tensors:
        return []
    # larger numbers first: each then begins at a multiple of its size
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    parts = [tensors[place].detach().contiguous() for place in order]
    together = torch.cat([part.flatten().view(torch.uint8) for part in parts]).cpu()
    found: list[np.ndarray] = [np.empty(0)] * len(tensors)
    start = 0
    for place, part in zip(order, parts, strict=True):
        data = together[start : start + part.nbytes]
        found[place] = data.view(part.dtype).view(part.shape).numpy()
        start += part.nbytes
    return found
