"""torchvision's ViT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ipvit.models.adapters.hooks import BlockInput, HookPoint, replaced
from ipvit.models.adapters.transformer import TransformerAdapter, patches_stay_apart


class TorchvisionVisionTransformer(TransformerAdapter):
    """torchvision's ``VisionTransformer``, whose attention is ``nn.MultiheadAttention``."""

    handles = ("torchvision.models.vision_transformer.VisionTransformer",)

    def __init__(self, network: Any) -> None:
        super().__init__(
            network,
            blocks=list(network.encoder.layers),
            prefix_tokens=("class",),
            final_norm=network.encoder.ln,
            heads={"class": network.heads, "pooled": network.heads},
            can=("attention", "token_removal") if patches_stay_apart(network.conv_proj) else ("attention",),
        )

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return image_size[0] // self.network.patch_size, image_size[1] // self.network.patch_size

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        owner: Any = self.blocks[block]
        return owner.self_attention.num_heads

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(block.self_attention, "output")]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        return block_inputs[0].args[0][1]

    @contextlib.contextmanager
    def _readable(self, block: Any) -> Iterator[None]:
        asking = {"need_weights": True, "average_attn_weights": False}
        with replaced(
            HookPoint(block.self_attention),
            lambda block_input: BlockInput(block_input.args, block_input.kwargs | asking),
        ):
            yield
