"""The bytes of a network's state, for its digest: tensors, and what quantised and other modules keep beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ipvit.errors import InputError


def state_parts(key: str, value: Any) -> Iterator[bytes | memoryview]:
    """Yield what identifies one entry of a ``state_dict``.

    Args:
        key: its name.
        value: a tensor, also a quantised one; or numbers, text, dtypes and containers of all of these.

    Raises:
        InputError: it is something else, of which nobody knows whether it is the same the next time.
    """
    if isinstance(value, Tensor):
        yield f"{key}{tuple(value.shape)}{value.dtype}".encode()
        if value.is_quantized:
            yield _scales(value)
            value = value.int_repr()
        yield _raw_bytes(value.to_dense() if value.layout != torch.strided else value)
    elif isinstance(value, Mapping):
        for name, part in sorted(value.items(), key=lambda item: str(item[0])):
            yield from state_parts(f"{key}[{name!r}]", part)
    elif isinstance(value, tuple | list):
        yield f"{key} {type(value).__name__} {len(value)}".encode()
        for place, part in enumerate(value):
            yield from state_parts(f"{key}[{place}]", part)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype):
        yield f"{key} {value!r}".encode()
    else:
        raise InputError(
            f"the network keeps a state {key.removeprefix('_')!r} of type {type(value).__name__}, by which it cannot "
            "be told from others; let get_extra_state return tensors, numbers and text"
        )


def _scales(value: Tensor) -> bytes:
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f"{value.q_scale()} {value.q_zero_point()}".encode()
    scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
    return f"{scales.tolist()} {zeros.tolist()} {value.q_per_channel_axis()}".encode()


def _raw_bytes(value: Tensor) -> memoryview:
    flat = value.detach().cpu().contiguous().reshape(-1)
    octets: Any = flat.view(torch.uint8).numpy() if flat.numel() else flat.to(torch.uint8).numpy()
    return memoryview(octets)
