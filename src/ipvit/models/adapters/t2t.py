"""T2T-ViT."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ipvit.models.adapters.hooks import BlockInput, HookPoint
from ipvit.models.adapters.transformer import TransformerAdapter, softmax_map


class T2T(TransformerAdapter):
    """The backbone behind the tokens-to-token module, which itself works on overlapping patches.

    A token has seen its neighbours' pixels when it enters the first block, so there is no token removal.
    """

    handles = ("ipvit.models.zoo.t2t.T2TViT",)

    def __init__(self, network: Any) -> None:
        super().__init__(
            network,
            blocks=list(network.blocks),
            prefix_tokens=("class",),
            final_norm=network.norm,
            heads={"class": network.head, "pooled": network.head},
            can=("attention",),
        )

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        rows, columns = self.network.grid_size
        return int(rows), int(columns)

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        owner: Any = self.blocks[block]
        return owner.attn.num_heads

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(block.attn.qkv, "output")]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        queries, keys, _ = block_inputs[0].args[0].chunk(3, dim=-1)
        return softmax_map(queries[:, : self._queries], keys, block.attn.num_heads, block.attn.scale)
