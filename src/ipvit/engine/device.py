"""Where and how precisely the networks run."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from ipvit.core.run_config import RunConfig
from ipvit.engine.loop.compiled import Compiled
from ipvit.engine.loop.residents import Residents
from ipvit.errors import InputError
from ipvit.models.model import Model
from ipvit.models.wide_products import short_products

if TYPE_CHECKING:
    from ipvit.engine.types import Task

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Names of settings in glibc's ``malloc.h``."""

_DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast casts to in each precision; None where it casts nothing."""


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
    index = cast("int | None", device.index)  # None without a number, which torch's types leave out
    if device.type == "cuda" and index is not None and index >= torch.cuda.device_count():
        raise InputError(f"there are {torch.cuda.device_count()} CUDA devices here, no {name!r}")
    return device


def name_of(device: torch.device) -> str:
    """Return the name that a device's maker has given it; for a processor, as far as the system says."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} of {platform.machine()}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def numerics(device: torch.device, precision: str) -> Generator[None]:
    """Compute in a precision: ``fp32`` is full fp32 (no TF32), ``tf32`` allows it, the others are autocast.

    Where a processor has no instructions for 16-bit numbers, their products are computed in float32 and rounded.
    """
    dtype = _DTYPES[precision]
    products = contextlib.nullcontext() if dtype is None else short_products(device, {dtype})
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), products:
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextlib.contextmanager
def without_gradients(model: Model, precision: str) -> Generator[None]:
    """Compute without gradients; in 16 bits each weight is cast once in here, and not once a pass.

    Autocast keeps what it casts until its end, but only of weights that ask for gradients, as those in training do, and
    never in inference mode.
    """
    if _DTYPES[precision] is None:
        with torch.inference_mode():
            yield
        return
    weights = [
        weight
        for weight in model.parameters()
        if weight.is_floating_point() and not weight.requires_grad and not weight.is_inference()
    ]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.no_grad():
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)


@contextlib.contextmanager
def pooled_allocator(device: torch.device) -> Generator[None]:
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


@contextlib.contextmanager
def models_on_device(
    models: Sequence[Model], device: torch.device, config: RunConfig, tasks: Sequence[Task] = ()
) -> Generator[Residents]:
    """Put the networks on the device, compiled where asked for; afterwards they are where and what they were.

    Those that do not fit there together take turns.

    Args:
        models: the networks.
        device: where to.
        config: the options of the run.
        tasks: what is to be measured; a network that a backend computes everywhere keeps its layout.

    Yields:
        Which of them are there.
    """
    residents = Residents(device)
    by_torch = {task.model.name for task in tasks if task.model.backend == "torch"}
    elsewhere = {task.model.name for task in tasks} - by_torch
    before = [(model, model.device, model.backbone) for model in models]
    short = _DTYPES[config.precision] is not None and device.type in ("cpu", "cuda")
    try:
        for model in models:
            model.eval()
            residents.bring(model)
            if short and model.name not in elsewhere:
                _put_channels_last(model, device, config.precision)
            if config.compile and not hasattr(model.backbone, "_orig_mod"):
                model.backbone = Compiled(model.backbone)
        residents.begin()
        with pooled_allocator(device):
            yield residents
    finally:
        residents.leave()
        for model, earlier, backbone in before:
            model.backbone = backbone
            if short:
                model.to(memory_format=torch.contiguous_format)
            model.to(earlier)


def _put_channels_last(model: Model, device: torch.device, precision: str) -> None:
    """Lay convolutions out as their 16-bit kernels want them, unless the network's code does not stand it."""
    model.to(memory_format=torch.channels_last)
    try:
        with torch.inference_mode(), numerics(device, precision):
            model(torch.zeros(2, 3, *model.image_size, device=device))
    except RuntimeError:  # for example a view of what is no longer contiguous; what else is wrong shows later
        model.to(memory_format=torch.contiguous_format)
