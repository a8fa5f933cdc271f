"""Weights from files and URLs, without executing anything that is in them."""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.core.files import user_path
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line, printable
from ipvit.models.io.download import fetch
from ipvit.models.io.pickles import SAVE_WEIGHTS, first_type, refused_type, said_of

StateDict = dict[str, Tensor]

WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model",
    "model_state_dict",
    "teacher",
    "net",
)
"""Keys under which training scripts save the weights, the averaged ones first."""

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
"""What DataParallel, torch.compile and wrappers put before every name."""

_SCALAR: Any = np.array(0.0)[()].__reduce__()[0]  # NumPy's constructor of scalars, wherever this version keeps it

DATA_ONLY: list[Any] = [
    argparse.Namespace,
    *((_SCALAR, name) for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
]
"""Plain holders of values that training checkpoints of the field carry beside the weights; they run no code."""


def resolve(location: str, sha256: str | None = None) -> Path:
    """Return the local file for a path or URL; a URL is downloaded once into torch's hub folder.

    Args:
        location: a path, or an ``http``, ``https`` or ``file`` URL.
        sha256: the SHA-256 of what the URL holds, or its first hex digits, where it is known.
    """
    scheme = urlparse(location).scheme
    if scheme in ("http", "https", "file"):
        return fetch(location, sha256=sha256)
    path = user_path(location)
    if not path.is_file():
        raise InputError(f"there is no weights file {location!r}")
    return path


def read_state_dict(path: Path) -> StateDict:
    """Read the weights of a safetensors or PyTorch file.

    PyTorch files are read with ``weights_only=True``; the usual wrappers (``model``, ``state_dict``, an exponential
    moving average before the plain weights) and prefixes (``module.``) are taken off.

    Args:
        path: the file.

    Raises:
        InputError: the file is empty, a web page, needs code to be read, or holds no weights.
    """
    state = unwrapped(read_content(path))
    if not state:
        raise InputError(f"the weights file {str(path)!r} holds no tensors")
    return state


def read_content(path: Path) -> Mapping[str, Any]:
    """Read a safetensors or PyTorch file, see :func:`read_state_dict`, with all that lies round the weights.

    Raises:
        InputError: the file is empty, a web page, a pointer, an index, needs code to be read, or holds no mapping.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise InputError(f"the weights file {str(path)!r} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{str(path)!r} is a Git LFS pointer, not the weights; fetch them there with 'git lfs pull'")
    if head.lstrip()[:1] == b"<" and b"<" in head:
        raise InputError(f"{str(path)!r} is a web page saved under that name, not weights; download the file itself")
    if path.name.endswith(".json"):
        n = len(set(shards_of(path).values()))
        raise InputError(f"{str(path)!r} is the index of {n} shards, not weights; give their folder: NAME@FOLDER")
    content: Any = _read_safetensors(path) if is_safetensors(path) else _read_torch(path)
    if not isinstance(content, Mapping):
        raise InputError(
            f"the weights file {str(path)!r} holds no tensors but an object of type {type(content).__name__}"
        )
    return content


def shards_of(index: Path) -> dict[str, str]:
    """Return the file of each weight from an index of shards.

    Raises:
        InputError: it is no such index, or names files outside its folder.
    """
    try:
        found = json.loads(index.read_text("utf-8"))["weight_map"]
        found = {str(key): str(name) for key, name in found.items()}
    except (OSError, ValueError, RecursionError, *FOREIGN_ERRORS):
        raise InputError(f"{str(index)!r} is not weights, and no index of them") from None
    if strange := [name for name in found.values() if Path(name).name != name]:
        raise InputError(f"{str(index)!r} names a file outside its folder: {printable(strange[0])!r}")
    return found


def load_strictly(network: nn.Module, state: StateDict, where: str) -> None:
    """Load weights into a network; every name and shape must fit.

    Raises:
        InputError: how many keys are missing, unexpected or misshapen, and the first of them.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own and not key.endswith("num_batches_tracked")]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = [
        f"{len(names)} {title}: {_first(names)}"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if faults:
        hint = ""
        if missing and all(
            key.partition(".")[0] in ("head", "head_dist", "fc", "classifier", "heads") for key in missing
        ):
            hint = "; it has no classifier: NAME?num_classes=0@FILE loads what there is"
        elif not (missing or unexpected):
            hint = "; another size or number of classes is asked for as NAME?img_size=...&num_classes=..."
        raise InputError(
            f"the weights {where} do not fit {type(network).__name__} with its {len(own)} tensors: {'; '.join(faults)}"
            f"{hint}"
        )
    whole = [key for key in own if key in state and own[key].is_floating_point() and not _is_float(state[key])]
    if whole:
        raise InputError(
            f"the weights {where} hold {whole[0]!r} as {str(state[whole[0]].dtype).removeprefix('torch.')}, where "
            f"{type(network).__name__} has floating-point numbers ({len(whole)} such tensors)"
        )
    network.load_state_dict(state, strict=False)  # "strict" would refuse what was just allowed: batch-norm counters


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.is_quantized and tensor.layout == torch.strided


def _first(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(printable(name)[:80] for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def is_safetensors(path: Path) -> bool:
    """Tell whether a file is, or calls itself, a safetensors file."""
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors":
        return True
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a whole safetensors file: {error_line(error, 300)}") from None


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(DATA_ONLY):
            warnings.simplefilter("ignore")  # of what is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, MemoryError, pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
        kind = refused_type(error)  # otherwise the reader stumbled over damaged bytes
        if kind is None:
            said = error_line(error, 300)
            why = f": {said}" if any(map(str.isalpha, said)) else ""  # the bare key of a lookup says nothing
            raise InputError(f"{str(path)!r} is not a PyTorch weights file{why}; {SAVE_WEIGHTS}") from None
        kind = kind or first_type(path)
        if not kind and not zipfile.is_zipfile(path):
            raise InputError(f"{str(path)!r} is not a PyTorch weights file; {SAVE_WEIGHTS}") from None
        raise InputError(f"{str(path)!r} is not weights alone: {said_of(kind)}") from None


def tensors_of(content: Mapping[Any, Any]) -> StateDict:
    """Return the tensors that lie directly in a mapping."""
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def unwrapped(content: Any) -> StateDict:
    """Return the weights under the first of :data:`WRAPPERS`, if any, without :data:`PREFIXES`."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    state = tensors_of(content)
    while state:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
