"""timm's TNT: a transformer over patches with a small one over the pixels inside every patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ipvit.models.adapters.hooks import BlockInput, HookPoint
from ipvit.models.adapters.timm.vit import intermediate_tokens
from ipvit.models.adapters.transformer import TransformerAdapter


class TimmTNT(TransformerAdapter):
    """timm's ``TNT``.

    A block takes pixel embeddings ``(B * patches, pixels, d)`` beside the patch tokens. Dropping or removing a patch
    does so with both: otherwise its pixels would bring it back inside the block. Attention is the outer one's.
    """

    handles = ("timm.models.tnt.TNT",)
    token_argument = 1

    def __init__(self, network: Any) -> None:
        heads = {"pooled": network.head}
        if network.global_pool == "token":
            heads["class"] = network.head
        can = ["attention"]
        # The older variant's first convolution runs over the borders of the patches.
        if not network.pixel_embed.legacy:
            can.append("token_removal")
        super().__init__(
            network,
            blocks=list(network.blocks),
            prefix_tokens=("class",),
            final_norm=network.norm,
            heads=heads,
            can=can,
        )

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        rows, columns = self.network.pixel_embed.grid_size
        return int(rows), int(columns)

    def _outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        return intermediate_tokens(self.network, images, blocks)

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        return self.network.forward_head(self.final_norm(tokens) if norm else tokens, pre_logits=True)

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        owner: Any = self.blocks[block]
        return owner.attn_out.num_heads

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(block.attn_out.attn_drop)]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        return block_inputs[0].args[0]

    def _masked(self, args: tuple[Any, ...], keep: Tensor) -> tuple[Any, ...]:
        pixels, tokens = super()._masked(args, keep)
        kept = keep.reshape(-1, 1, 1).to(pixels.device)
        return pixels.where(kept, pixels.new_zeros(())), tokens

    def _gathered(self, args: tuple[Any, ...], index: Tensor) -> tuple[Any, ...]:
        pixels, tokens = super()._gathered(args, index)
        batch = index.shape[0]
        by_patch = pixels.unflatten(0, (batch, -1))
        at = index.to(pixels.device)[:, :, None, None].expand(-1, -1, *by_patch.shape[2:])
        return by_patch.gather(1, at).flatten(0, 1), tokens
