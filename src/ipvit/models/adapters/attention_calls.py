"""Read attention maps where they are computed: at PyTorch's own softmax or scaled dot-product attention.

What a library adds to queries and keys before (rotations, biases between places, masks) is in what is read, whatever
its release calls the modules.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ipvit.errors import InputError
from ipvit.models.adapters.hooks import HookPoint, read

_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)


def attention_calls(
    network: nn.Module, images: Tensor, blocks: Sequence[nn.Module], wanted: Sequence[int], queries: int | None = None
) -> dict[int, Tensor]:
    """Return the attention maps ``(B, heads, T, T)`` of some blocks, from one pass that ends behind the last of them.

    Args:
        network: the network.
        images: its input.
        blocks: all of its blocks.
        wanted: numbers of the blocks that are read.
        queries: so many first rows of a map are wanted; None for all.

    Raises:
        InputError: a block computes no such map, or several.
    """
    with reading(network, blocks, wanted, queries) as found:
        read(network, images, [HookPoint(blocks[max(wanted)], "output")])
    return found


def received_calls(
    network: nn.Module, images: Tensor, blocks: Sequence[nn.Module], wanted: Sequence[int]
) -> dict[int, Tensor]:
    """Return the share of a map that each token receives ``(B, T)``, of some blocks, from one pass that ends there.

    Where attention is one call, no map is kept for gradients: each is made again from its queries and keys, one at a
    time, when they are asked for.

    Raises:
        InputError: a block computes no such map, or several.
    """
    with reading(network, blocks, wanted, received=True) as found:
        read(network, images, [HookPoint(blocks[max(wanted)], "output")])
    return found


@contextlib.contextmanager
def reading(
    network: nn.Module,
    blocks: Sequence[nn.Module],
    wanted: Sequence[int],
    queries: int | None = None,
    *,
    received: bool = False,
) -> Iterator[dict[int, Tensor]]:
    """Read the maps of some blocks, or what tokens receive in them, from the one pass that is made inside.

    They are there behind it.

    Raises:
        InputError: a block computes no such map, or several.
    """
    reader, found = _Reader(queries, received=received), {}
    with contextlib.ExitStack() as stack:
        for number in wanted:
            stack.enter_context(_inside(blocks[number], number, reader))
        stack.enter_context(reader)
        yield found
    for number in wanted:
        maps = reader.maps.get(number, [])
        if len(maps) != 1:
            raise InputError(
                f"block {number} of {type(network).__name__} computes {len(maps) or 'no'} attention maps with "
                "PyTorch's softmax or scaled dot-product attention; one can be read"
            )
        found[number] = maps[0]


class _Reader(TorchFunctionMode):
    """Keeps what the block that is running computes."""

    def __init__(self, queries: int | None, *, received: bool) -> None:
        super().__init__()
        self.queries, self.received = queries, received
        self.block: int | None = None
        self.maps: dict[int, list[Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.block is None:
            return output
        if func is F.scaled_dot_product_attention:
            self.maps.setdefault(self.block, []).append(self._of_call(functools.partial(_map_of, **kwargs), args))
        elif func in _SOFTMAX and output.ndim == 4 and output.shape[-1] == output.shape[-2]:
            self.maps.setdefault(self.block, []).append(shares(output) if self.received else output)
        return output

    def _of_call(self, map_of: Callable[..., Tensor], args: tuple[Any, ...]) -> Tensor:
        if not self.received:
            return map_of(self.queries, *args)
        made = functools.partial(map_of, None)
        return checkpoint(lambda *given: shares(made(*given)), *args, use_reentrant=False, preserve_rng_state=False)


def shares(maps: Tensor) -> Tensor:
    """Return the share of maps ``(B, heads, T, T)`` that each token receives, ``(B, T)``, a mean over heads and rows.

    Raises:
        InputError: these are no maps.
    """
    if maps.ndim != 4 or maps.shape[-2] != maps.shape[-1]:
        raise InputError(f"{tuple(maps.shape)} is not an attention map (B, heads, T, T)")
    return maps.mean(dim=(1, 2))


@contextlib.contextmanager
def _inside(block: nn.Module, number: int, reader: _Reader) -> Iterator[None]:
    """Tell a reader when a block runs."""

    def enter(*_: Any) -> None:
        reader.block = number

    def leave(*_: Any) -> None:
        reader.block = None

    handles = (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _map_of(
    queries: int | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,  # noqa: ARG001 - the arguments of scaled_dot_product_attention
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the map that scaled dot-product attention applies, ``(B, heads, queries, T)``."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query[..., :queries, :] @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen[:queries], float("-inf"))
    if attn_mask is not None:
        mask = attn_mask if attn_mask.shape[-2] == 1 else attn_mask[..., :queries, :]
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)
