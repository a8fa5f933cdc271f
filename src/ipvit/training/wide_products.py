"""Matrix products of bfloat16 numbers on processors that have no instructions for them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_aten: Any = torch.ops.aten
_PRODUCTS = {
    _aten.mm,
    _aten.addmm,
    _aten.bmm,
    _aten.baddbmm,
    _aten.convolution,
    _aten.convolution_backward,
}


def bf16_products(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return what computes products of bfloat16 numbers in the fastest way that gives their values.

    Without instructions for them torch multiplies number by number, which takes ten to eighty times as long as in
    float32: ``precision: bf16`` and Muon, which orthogonalises in bfloat16, would hardly come to an end.

    Args:
        device: where the training computes.
    """
    if device.type != "cpu" or _has_instructions():
        return contextlib.nullcontext()
    return WideProducts()


def _has_instructions() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - what torch itself asks


class WideProducts(TorchDispatchMode):
    """Compute products of bfloat16 numbers in float32 and round what comes out.

    That is what instructions for bfloat16 do, but for the order in which they add: products are exact in float32.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Widen what a product takes, and narrow what it gives; everything else is left as it is."""
        kwargs = kwargs or {}
        if func.overloadpacket not in _PRODUCTS or args[1].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        into = kwargs.get("out")
        given = {name: value for name, value in kwargs.items() if name != "out"}
        made = func.overloadpacket(*tree_map(_wide, args), **tree_map(_wide, given))
        return tree_map(_narrow, made) if into is None else into.copy_(made)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _narrow(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) else value
