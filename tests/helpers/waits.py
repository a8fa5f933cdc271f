"""A GPU without a GPU: what it would be given, and where the processor would wait for it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ipvit.perturb.corruptions import jpeg_tensors, tensor_versions
from ipvit.perturb.corruptions.keyed import displacement, noise, weather

CUDA = torch.device("cuda", 0)

READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "equal", "is_nonzero")
"""Operators whose answer the processor must have before it goes on."""


class Waits(TorchDispatchMode):
    """Counts operators, those that queue something, copies from the processor, and waits for the device, by name.

    A copy that is not told not to wait is one, in either direction, and so is what turns a mask into numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.queued = self.sent = 0
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("device", "detach", "lift_fresh", "detach_"):
            return func(*args, **kwargs)
        tensors = [value for value in args if isinstance(value, Tensor)]
        on_device = any(value.device.type == "cuda" for value in tensors)
        self.operators += on_device
        self.queued += on_device and not _only_looks(func)
        if on_device and name in READS:
            self.waits[name] += 1
        if on_device and name in ("index", "index_put", "index_put_"):
            for index in args[1]:
                if isinstance(index, Tensor) and index.dtype == torch.bool:
                    self.waits["index by a mask"] += 1
                elif isinstance(index, Tensor) and index.device.type == "cpu":
                    self.waits["index from the processor"] += 1
        if name in ("_to_copy", "to", "copy_"):
            self._copied(name, args, kwargs)
        return func(*args, **kwargs)

    def _copied(self, name: str, args: Any, kwargs: Any) -> None:
        if name == "copy_":
            target, source = args[0].device, args[1].device
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        else:
            source = args[0].device
            given = [value for value in args[1:] if isinstance(value, torch.device)]
            target = torch.device(kwargs.get("device") or (given[0] if given else source))
            waits = not kwargs.get("non_blocking", True in args[1:])
        if source.type != target.type:
            self.sent += source.type == "cpu"
            if waits:
                self.waits[f"{source.type} to {target.type}"] += 1


def _only_looks(func: Any) -> bool:
    """Tell whether an operator returns another view of a tensor, for which nothing is computed."""
    return any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)


@contextlib.contextmanager
def no_tables_kept() -> Iterator[None]:
    """Begin and end without the corruptions' tables, which would belong to the GPU that is not there."""
    modules = (tensor_versions, jpeg_tensors, displacement, noise, weather)
    kept = [made for module in modules for made in vars(module).values() if hasattr(made, "cache_clear")]
    for made in kept:
        made.cache_clear()
    try:
        yield
    finally:
        for made in kept:
            made.cache_clear()


def put_on_a_device_that_is_not_there(network: nn.Module) -> None:
    """Replace the weights of a network by such of the same shapes on a GPU; inside :func:`no_gpu` only."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(_like(weight), requires_grad=False)
        for name, values in module._buffers.items():
            if values is not None:
                module._buffers[name] = _like(values)


def _like(values: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=values.dtype, device=CUDA)


@contextlib.contextmanager
def no_gpu() -> Iterator[None]:
    """Let tensors have shapes, types and devices, and nothing in them."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
