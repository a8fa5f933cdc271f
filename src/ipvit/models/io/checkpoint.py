"""Weights with what is needed to use them in one safetensors file: architecture, classes, preprocessing, recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from ipvit.core.files import write_atomic
from ipvit.core.text.validation_messages import explain
from ipvit.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

METADATA_KEY = "ipvit"
FORMAT = 1

_Pixels = Annotated[int, Field(ge=1, le=16384)]


def save_checkpoint(
    path: str | Path, network: nn.Module, metadata: dict[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write a network's weights and their description.

    Args:
        path: the file, ``.safetensors``; replaced in one step, never half written.
        network: whose ``state_dict`` is saved.
        metadata: ``architecture`` (``name`` and ``kwargs`` for :func:`~ipvit.models.zoo.micro.build_network`),
            ``classes``, ``preprocessing``, and further ``recipe`` and ``measured``; anything JSON can hold.
        dtype: floating-point tensors are stored in this type; unchanged by default.
    """
    from safetensors.torch import save

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
        with safe_open(str(path), framework="np") as file:  # the header alone is read, which needs no torch
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    if text is None:
        return None
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its {METADATA_KEY!r} metadata is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: its {METADATA_KEY!r} metadata is not what ipvit train writes")
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {metadata.get('format')!r}; this version reads {FORMAT}")
    try:
        _Description.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: its {METADATA_KEY!r} metadata is damaged: {explain(error, _Description)}") from None
    return metadata


class ViewMetadata(BaseModel):
    """A :class:`~ipvit.core.preprocessing.View` as the files of checkpoints and probes state it."""

    size: tuple[_Pixels, _Pixels]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: Literal["bicubic", "bilinear", "nearest"]
    crop_mode: Literal["center", "center_floor", "squash"] = "center"


class _Architecture(BaseModel):
    name: str
    kwargs: dict[str, Any] = {}


class _Preprocessing(ViewMetadata):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Description(BaseModel):
    """What has to be stated of a network before it can be built; there may be more."""

    model_config = ConfigDict(allow_inf_nan=False)

    architecture: _Architecture
    classes: list[str]
    preprocessing: _Preprocessing
    distillation_token: str = ""
