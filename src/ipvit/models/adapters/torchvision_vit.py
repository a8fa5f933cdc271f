"""torchvision's ViT."""

from __future__ import annotations

from typing import Any

from ipvit.models.adapters.multihead import MultiheadAttentionAdapter
from ipvit.models.adapters.transformer import patches_stay_apart


class TorchvisionVisionTransformer(MultiheadAttentionAdapter):
    """torchvision's ``VisionTransformer``, whose attention is ``nn.MultiheadAttention``."""

    handles = ("torchvision.models.vision_transformer.VisionTransformer",)
    attention_name = "self_attention"

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
