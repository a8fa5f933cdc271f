"""Matrix products of 16-bit numbers on processors that have no instructions for them."""

from __future__ import annotations

import contextlib
from collections.abc import Set
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
_ASKED = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
"""What torch itself asks before it uses a processor's instructions."""


def short_products(device: torch.device, formats: Set[torch.dtype]) -> contextlib.AbstractContextManager[Any]:
    """Return what computes products of 16-bit numbers in the fastest way that gives their values.

    Without instructions for them torch multiplies number by number, which takes ten to eighty times as long as in
    float32: bf16 and fp16, and Muon, which orthogonalises in bfloat16, would be far slower than float32.

    Args:
        device: where they are computed.
        formats: those of 16 bits that occur. For others nothing is watched: it takes time, and a trace that is made
            meanwhile would take numbers of images for constants.
    """
    lacking = _without_instructions() & formats if device.type == "cpu" else set[torch.dtype]()
    return WideProducts(lacking) if lacking else contextlib.nullcontext()


def _without_instructions() -> set[torch.dtype]:
    """Return the formats of 16 bits for which torch says that this processor has no instructions."""
    asked = {dtype: getattr(torch.ops.mkldnn, name, None) for dtype, name in _ASKED.items()}
    return {dtype for dtype, supported in asked.items() if supported is not None and not supported()}


class WideProducts(TorchDispatchMode):
    """Compute products of 16-bit numbers in float32 and round what comes out.

    That is what instructions for them do, but for the order in which they add: products are exact in float32.

    Args:
        formats: bfloat16, float16 or both.
    """

    def __init__(self, formats: Set[torch.dtype] = frozenset(_ASKED)) -> None:
        super().__init__()
        self._formats = formats

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Widen what a product takes, and round what it gives; everything else is left as it is."""
        kwargs = kwargs or {}
        if func.overloadpacket not in _PRODUCTS or (dtype := args[1].dtype) not in self._formats:
            return func(*args, **kwargs)
        into = kwargs.get("out")
        given = {name: value for name, value in kwargs.items() if name != "out"}

        def wide(value: Any) -> Any:
            return value.float() if isinstance(value, Tensor) and value.dtype == dtype else value

        def rounded(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) else value

        made = func.overloadpacket(*tree_map(wide, args), **tree_map(wide, given))
        return tree_map(rounded, made) if into is None else into.copy_(made)
