"""Where and how precisely the networks run."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import get_args

import torch

from ipvit.errors import InputError
from ipvit.models.backend import Precision

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Names of settings in glibc's ``malloc.h``."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        local_rank: number of this process among several on this machine; they take turns at the CUDA devices unless
            the name has a number.

    Raises:
        InputError: there is no such device here.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available() and local_rank is not None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no kind of device {name!r}; known: auto, cpu, cuda, cuda:1, mps") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise InputError(f"the device {name!r} is not available here; use --device cpu or auto")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"there are {torch.cuda.device_count()} CUDA devices here, no {name!r}")
    return device


@contextlib.contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in a precision: ``fp32`` is full fp32 (no TF32), the others are autocast."""
    if precision not in get_args(Precision):
        raise InputError(f"unknown precision {precision!r}; known: {', '.join(get_args(Precision))}")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    try:
        with torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextlib.contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Let the process keep the memory of large tensors that are freed, on the CPU under glibc; elsewhere do nothing.

    glibc takes blocks above 32 MB from the system one by one and gives them back when they are freed. A network's
    layers then wait for the system to clear fresh pages, again for every layer: up to a third of a pass.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if device.type != "cpu" or not hasattr(library, "mallopt"):
        yield
        return
    assert library is not None
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # the largest values that glibc itself would choose: once set, it no longer adapts them
        library.mallopt(_M_MMAP_MAX, 65536)
        library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)
        library.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the batch was too large for the memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
