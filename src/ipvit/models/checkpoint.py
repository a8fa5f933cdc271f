"""Weights with what is needed to use them in one safetensors file: architecture, classes, preprocessing, recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ipvit.errors import InputError
from ipvit.files import write_atomic

METADATA_KEY = "ipvit"
FORMAT = 1


def save_checkpoint(
    path: str | Path, network: nn.Module, metadata: dict[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write a network's weights and their description.

    Args:
        path: the file, ``.safetensors``; replaced in one step, never half written.
        network: whose ``state_dict`` is saved.
        metadata: ``architecture`` (``name`` and ``kwargs`` for :func:`~ipvit.models.micro.build_network`),
            ``classes``, ``preprocessing``, and further ``recipe`` and ``measured``; anything JSON can hold.
        dtype: floating-point tensors are stored in this type; unchanged by default.
    """
    tensors = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    header = {METADATA_KEY: json.dumps({"format": FORMAT, **metadata})}
    write_atomic(Path(path), save(tensors, metadata=header))


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Return the description in a safetensors file, or None if the file has none (it was not written by ipvit).

    Raises:
        InputError: if the file is not a safetensors file, or was written by a later version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    if text is None:
        return None
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its {METADATA_KEY!r} metadata is not JSON: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {metadata.get('format')!r}; this version reads {FORMAT}")
    return metadata
