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
    parts = [tensor.detach().contiguous() for tensor in tensors]
    stretches = _stretches(parts)
    # larger numbers first: each then begins at a multiple of its size
    stretches.sort(key=lambda stretch: -parts[stretch[0]].element_size())
    together = torch.cat([_joined([parts[place] for place in stretch]) for stretch in stretches]).cpu()
    found: list[np.ndarray] = [np.empty(0)] * len(tensors)
    start = 0
    for place in (place for stretch in stretches for place in stretch):
        part = parts[place]
        data = together[start : start + part.nbytes]
        found[place] = data.view(part.dtype).view(part.shape).numpy()
        start += part.nbytes
    return found


def _stretches(parts: Sequence[Tensor]) -> list[list[int]]:
    """Return the places of tensors that lie one behind the other in memory, as parts of one column do, together."""
    by_memory: dict[tuple[int, torch.dtype], list[int]] = {}
    for place, part in enumerate(parts):
        by_memory.setdefault((part.untyped_storage().data_ptr(), part.dtype), []).append(place)
    stretches: list[list[int]] = []
    for places in by_memory.values():
        end = -1
        for place in sorted(places, key=lambda place: parts[place].storage_offset()):
            if parts[place].storage_offset() == end:
                stretches[-1].append(place)
            else:
                stretches.append([place])
            end = parts[place].storage_offset() + parts[place].numel()
    return stretches


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the bytes of tensors that lie one behind the other, without a copy."""
    first = parts[0]
    length = sum(part.numel() for part in parts)
    return first.as_strided((length,), (1,), first.storage_offset()).view(torch.uint8)
